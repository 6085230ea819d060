"""Stage `tables`: the metrics of all runs to tables."""

from dataclasses import asdict

import pandas as pd

from rsnlib.config import load_params
from rsnlib.data.store import CropStore
from rsnlib.files import fingerprint, whole_file
from rsnlib.report import cost
from rsnlib.report.tables import (
    ablation_caption,
    ablation_table,
    differences,
    evaluation_caption,
    evaluation_table,
    origin,
    results_caption,
    results_table,
    server_table,
    write_table,
)
from rsnlib.stages.layout import (
    code_fingerprint,
    crops_path,
    load_draws,
    load_evaluation,
    load_figures,
    load_run,
    results_path,
    runs,
)
from rsnlib.training.loop import iterations


def tables(dataset):
    """Write every table of a data set: its results, each group of `ablations` of which two models are run and what
    these say in words, and the published results of its test people. Returns their Markdown, {title: text}."""
    params = load_params()
    settings, seeds, folder = params.dataset(dataset), len(params.run.seeds), results_path(dataset, "tables")
    figures, draws, made = load_figures(dataset), load_draws(dataset), run_origin(dataset)

    table, text = results_table(figures, draws, dataset, settings), results_caption(settings, seeds, made)
    written = {"Results": write_table(table, folder, "results", text)}

    ablations = {}
    for name, group in params.ablations.items():
        models = [model for model in group if model in params.run.models]
        if len(models) > 1:
            costs = {model: run_cost(dataset, model) for model in models}
            ablations[name] = ablation_table(figures, draws, models, costs, settings)
    written["Differences"] = differences(ablations, dataset, settings.reader, seeds)
    with whole_file(folder / "differences.md", "w") as file:
        file.write(written["Differences"])
    text = ablation_caption(settings, seeds, made)
    formats = {"difference": "{:+z.1f}", "parameters (M)": "{:.2f}", "multiply-adds (G)": "{:.2f}"}
    for name, table in ablations.items():
        written[f"Ablation: {name}"] = write_table(table, folder, f"ablation-{name}", text, formats=formats)

    variants = [
        load_evaluation(dataset, model, seed, "variants").assign(model=model, seed=seed)
        for model, seed in runs(dataset)
    ]
    table = evaluation_table(pd.concat(variants, ignore_index=True), settings.reader)
    written["Ways of evaluating"] = write_table(table, folder, "evaluation", evaluation_caption(made))

    table = server_table(dataset, settings)
    if table is not None:
        text = "As published, per cent. Ours are missing: only the data set's own server can judge its test people."
        written["Test people"] = write_table(table, folder, "test", text)
    return written


def run_cost(dataset, model):
    """(parameters, multiply-adds) of a trained network, for one person."""
    network = load_run(dataset, model, load_params().run.seeds[0])
    return cost.cost(network.architecture, network.keypoints, network.input_size)


def run_origin(dataset):
    """What the runs on a data set were made of, in words (tables.origin)."""
    params = load_params()
    settings = params.dataset(dataset)
    stores = {split: CropStore(crops_path(dataset, split)) for split in ("train", "val")}
    people = {split: len(store) for split, store in stores.items()}
    trained_as = [load_run(dataset, model, seed).about for model, seed in runs(dataset)]
    return origin(
        dataset,
        people,
        iterations(settings.schedule, people["train"], params.train.epochs),
        settings.schedule.batch_size,
        ", ".join(dict.fromkeys(about.get("machine", "an unrecorded machine") for about in trained_as)),
        {
            "parameters": fingerprint([about["params"] for about in trained_as], asdict(params.evaluate)),
            "data": fingerprint([store.fingerprint for store in stores.values()]),
            "code": code_fingerprint("prepare", "train", "evaluate", "tables"),
        },
        dataset in params.evaluate.detections,
    )
