"""Runs to tables a person reads: ours beside published numbers, as Markdown, CSV and LaTeX."""

import re
from pathlib import Path

import pandas as pd

from rsnlib.metrics.coco import FIGURES
from rsnlib.metrics.pck import GROUPS
from rsnlib.runtime import UserError, whole_file

PUBLISHED = {"coco": "published.csv", "mpii": "published_mpii.csv"}


def published(reader):
    """The published numbers for a data set of that reader, per cent: dataset, split, model, source, input and figures.
    None where nothing was published."""
    return pd.read_csv(Path(__file__).parent / PUBLISHED[reader]) if reader in PUBLISHED else None


def figure_names(reader):
    """The columns of a results table."""
    return list(FIGURES) if reader == "coco" else [*GROUPS, "Mean"]


def results_table(figures, dataset, settings):
    """Our runs beside the published validation results of the same models, one row each, figures in per cent.

    figures: a data frame, one row a run (pipeline.load_figures)
    dataset: its name; settings: config.Dataset
    """
    names = figure_names(settings.reader)
    if not set(names) <= set(figures):
        raise UserError(f"{dataset}: the runs' figures lack {', '.join(set(names) - set(figures))}")
    size = "x".join(map(str, settings.input_size))
    percent = 100 if settings.reader == "coco" else 1
    ours = figures[["model", "seed"]].assign(data=dataset, source="this run", input=size)
    ours[names] = (figures[names] * percent).where(figures[names] >= 0)  # COCO's -1: nobody to count
    rows = [ours]
    others = published(settings.reader)
    if others is not None:
        others = others[(others["split"] == "val") & others["model"].isin(figures["model"].map(base_model))]
        label = {"coco": "COCO val", "mpii": "MPII val"}[settings.reader]
        rows.append(others.assign(data=label)[["model", "source", "data", "input", *names]])
    table = pd.concat(rows, ignore_index=True)[["model", "source", "seed", "data", "input", *names]]
    return table.assign(seed=table["seed"].astype("Int64"))


def evaluation_table(variants, reader):
    """What the flip test and the decoding bring: one row a run and way, in per cent AP and AP75, or PCK's mean, each
    with its gain over the plainest way (no flip test, a quarter of a cell), in points.

    variants: a data frame, one row a run and way: model, seed, flip_test, decoding and figures
    """
    plain = variants[~variants["flip_test"] & (variants["decoding"] == "quarter")].set_index(["model", "seed"])
    runs = pd.MultiIndex.from_frame(variants[["model", "seed"]])
    table = variants[["model", "seed"]].assign(
        **{"flip test": variants["flip_test"].map({True: "yes", False: "no"}), "decoding": variants["decoding"]}
    )
    for name in ("AP", "AP75") if reader == "coco" else ("Mean",):
        percent = 100 if reader == "coco" else 1
        table[name] = variants[name] * percent
        table[f"{name} gain"] = table[name] - plain.loc[runs, name].to_numpy() * percent
    return table


def base_model(name):
    """The model that published numbers exist for: a name without what an ablation appends to it (rsn18-prm: rsn18)."""
    return name if name.endswith("-mmpose") else name.split("-")[0]


def write_table(table, folder, name, caption, decimals=1):
    """`table` as <name>.md, .csv and .tex (booktabs) in `folder`; the caption says what the reader sees."""
    folder = Path(folder)
    numbers = table.select_dtypes("float").columns
    shown = table.assign(
        **{column: table[column].map(f"{{:.{decimals}f}}".format, na_action="ignore") for column in numbers}
    )
    shown = shown.astype(object).where(shown.notna(), "")
    with whole_file(folder / f"{name}.csv", "w") as file:
        table.to_csv(file, index=False, float_format="%.4f", lineterminator="\n")
    with whole_file(folder / f"{name}.md", "w") as file:
        align = ["right" if column in numbers else "left" for column in table]
        file.write(shown.to_markdown(index=False, colalign=align, disable_numparse=True) + f"\n\n{caption}\n")
    with whole_file(folder / f"{name}.tex", "w") as file:
        align = "".join("r" if column in numbers else "l" for column in table)
        style = shown.style.hide(axis="index").format(escape="latex")
        text = re.sub(r"([%_&#$])", r"\\\1", caption.replace("`", ""))
        file.write(style.to_latex(column_format=align, hrules=True, caption=text))


def caption(dataset, settings, people, machine, detected=False):
    """What a results table says of itself. detected: whether the boxes were a detector's."""
    drawn = " Drawn people, a short recipe: these numbers say nothing about COCO." if dataset == "demo" else ""
    unit = "object keypoint similarity" if settings.reader == "coco" else "the share of correct keypoints"
    boxes = "a detector's boxes" if detected else "true boxes"
    return (
        f"Rows of `this run`: {dataset}, {people} validation people in {boxes}, by {unit}, per cent; {machine}.{drawn} "
        "Other rows: as published."
    )


def evaluation_caption(dataset):
    """What an evaluation table says of itself."""
    return (
        f"The runs on {dataset} judged without and with flip test, decoded by a quarter of a cell (the paper's) and by "
        "DARK, per cent; gain: points over no flip test and a quarter of a cell."
    )
