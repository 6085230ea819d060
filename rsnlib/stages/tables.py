"""Stage `tables`: what the runs on a data set reported to tables. Nothing here loads a network."""

from dataclasses import replace

import pandas as pd

from rsnlib.config import load_params
from rsnlib.files import fingerprint, whole_file
from rsnlib.metrics import protocol
from rsnlib.report import site
from rsnlib.report import tables as report
from rsnlib.stages.layout import results_path, runs
from rsnlib.stages.results import load_draws, load_evaluation, load_metrics, load_report


def tables(dataset):
    """Write every table of a data set: its results, the published ones of its models, each ablation of which two models
    are run and its verdicts in words, the ways of evaluating, and the published results of its test people. Returns
    their Markdown, {title: text}, but the ablations', which have a page of their own.
    """
    params = load_params()
    folder, seeds = results_path(dataset, "tables"), len(params.run.seeds)
    metrics, draws = load_metrics(dataset), load_draws(dataset)
    reports = [load_report(dataset, model, seed) for model, seed in runs(dataset)]
    judge = judge_of(dataset)
    made = runs_origin(dataset, reports)

    table = report.results_table(metrics, draws, dataset, judge)
    text = report.results_caption(judge, seeds, made)
    written = {"Results": report.write_table(table, folder, "results", text)}
    table = report.published_table(params.run.models, judge)
    if table is not None:
        text = report.published_caption(dataset, judge)
        written["As published"] = report.write_table(table, folder, "published", text)

    ablations = compare(dataset)
    written["Differences"] = report.differences(ablations, dataset, judge, seeds)
    with whole_file(folder / "differences.md", "w") as file:
        file.write(written["Differences"])
    text = report.ablation_caption(judge, seeds, made)
    for name, table in ablations.items():
        report.write_table(table, folder, f"ablation-{name}", text, formats=report.ABLATION_FORMATS)

    variants = [
        load_evaluation(dataset, model, seed, "variants").assign(model=model, seed=seed)
        for model, seed in runs(dataset)
    ]
    table = report.evaluation_table(pd.concat(variants, ignore_index=True), judge)
    text = report.evaluation_caption(made)
    written["Ways of evaluating"] = report.write_table(table, folder, "evaluation", text)

    table = report.server_table(dataset, judge)
    if table is not None:
        text = "As published, per cent. Ours are missing: only the data set's own server can judge its test people."
        written["Test people"] = report.write_table(table, folder, "test", text)
    return written


def headline(dataset):
    """Return the best network of a data set and how the others differ, in words: of what `tables` wrote."""
    folder, people = results_path(dataset, "tables"), load_report(dataset, *runs(dataset)[0])["people"]
    differences = (folder / "differences.md").read_text("utf-8")
    return site.headline(dataset, pd.read_csv(folder / "results.csv"), people, differences)


def compare(dataset):
    """Return each ablation of which two models ran on a data set: {name: table of report.tables.ablation_table}."""
    params, metrics, draws = load_params(), load_metrics(dataset), load_draws(dataset)
    costs = {row.model: (row.parameters, row.multiply_adds) for row in metrics.itertuples()}
    groups = {name: [model for model in lines if model in costs] for name, lines in params.ablations.items()}
    judge = judge_of(dataset)
    return {
        name: report.ablation_table(metrics, draws, models, costs, judge)
        for name, models in groups.items()
        if len(models) > 1
    }


def judge_of(dataset):
    """Return the Protocol of a data set; nothing was published of skeletons other than COCO's and MPII's."""
    reader, skeleton = load_params().judged_by(dataset)
    judge = protocol(reader, skeleton)
    return judge if skeleton.name in ("coco", "mpii") else replace(judge, published=None)


def runs_origin(dataset, reports):
    """Return the provenance of the runs on a data set, for captions. reports: of `load_report`, one per run"""
    first = reports[0]
    marks = {
        "parameters": fingerprint(
            [(each["fingerprints"]["parameters"], each["evaluation"]["parameters"]) for each in reports]
        ),
        "data": fingerprint([each["fingerprints"]["data"] for each in reports]),
        "code": fingerprint([(each["fingerprints"]["code"], each["evaluation"]["code"]) for each in reports]),
    }
    return report.origin(
        dataset,
        first["people"],
        first["iterations"],
        first["batch_size"],
        ", ".join(dict.fromkeys(each["machine"] for each in reports)),
        marks,
        first["evaluation"]["boxes"] == "detections",
    )
