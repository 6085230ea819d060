"""Stage `tables`: what the runs on a data set reported to tables. Nothing here loads a network."""

from dataclasses import replace

import pandas as pd

from rsnlib.config import load_params
from rsnlib.files import fingerprint, whole_file
from rsnlib.metrics import protocol
from rsnlib.report import tables as report
from rsnlib.stages.layout import results_path, runs
from rsnlib.stages.results import load_draws, load_evaluation, load_metrics, load_report


def tables(dataset):
    """Write every table of a data set: its results, the published ones of its models, each ablation of which two models
    are run and its verdicts in words, the ways of evaluating, and the published results of its test people. Returns
    their Markdown, {title: text}.
    """
    params = load_params()
    folder, seeds = results_path(dataset, "tables"), len(params.run.seeds)
    metrics, draws = load_metrics(dataset), load_draws(dataset)
    reports = [load_report(dataset, model, seed) for model, seed in runs(dataset)]
    judge = protocol(*params.judged_by(dataset))
    if reports[0]["skeleton"] not in ("coco", "mpii"):  # nothing was published of other skeletons
        judge = replace(judge, published=None)
    made = runs_origin(dataset, reports)

    table = report.results_table(metrics, draws, dataset, judge)
    text = report.results_caption(judge, seeds, made)
    written = {"Results": report.write_table(table, folder, "results", text)}
    table = report.published_table(params.run.models, judge)
    if table is not None:
        text = report.published_caption(dataset, judge)
        written["As published"] = report.write_table(table, folder, "published", text)

    costs = {row.model: (row.parameters, row.multiply_adds) for row in metrics.itertuples()}
    ablations = {}
    for name, lines in params.ablations.items():
        models = [model for model in lines if model in costs]
        if len(models) > 1:
            ablations[name] = report.ablation_table(metrics, draws, models, costs, judge)
    written["Differences"] = report.differences(ablations, dataset, judge, seeds)
    with whole_file(folder / "differences.md", "w") as file:
        file.write(written["Differences"])
    text = report.ablation_caption(judge, seeds, made)
    formats = {"difference": "{:+z.1f}", "parameters (M)": "{:.2f}", "multiply-adds (G)": "{:.2f}"}
    for name, table in ablations.items():
        written[f"Ablation: {name}"] = report.write_table(table, folder, f"ablation-{name}", text, formats=formats)

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
