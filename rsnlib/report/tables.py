"""Tables for a person to read: our runs, and published numbers, as Markdown, CSV and LaTeX.

`protocol` is the metrics.protocols.Protocol of the data set; one whose `published` is None has no published numbers.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from rsnlib.errors import UserError
from rsnlib.files import whole_file
from rsnlib.metrics.bootstrap import DRAWS, mean_and_interval, paired_difference

LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {">": r"\textgreater{}", "|": r"\textbar{}", "`": ""}
    | {character: f"\\{character}" for character in "%_&#${}"}
)
ABLATION_FORMATS = {"difference": "{:+z.1f}", "parameters (M)": "{:.2f}", "multiply-adds (G)": "{:.2f}"}
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # to the page, if the table is too wide


# ---- contents


def published(protocol):
    """Return the published numbers of a protocol, per cent: a data frame, columns dataset, split, model, source, input
    and metrics; without rows where nothing was published."""
    if not protocol.published:
        return pd.DataFrame(columns=["dataset", "split", "model", "source"], dtype=str)
    return pd.read_csv(Path(__file__).parent / protocol.published)


def _published_validation(protocol, models):
    """Return the rows of `published` for some models on validation people, with the column data ("COCO val")."""
    others = published(protocol)
    others = others[(others["split"] == "val") & others["model"].isin(models)]
    return others.assign(data=others["dataset"].str.upper() + " val")


def results_table(metrics, draws, dataset, protocol):
    """Return the results of our models: a data frame, one row each, metrics in per cent, means over the seeds. The
    protocol's metric comes first, with its interval (columns "<metric> low" and "<metric> high"). Raises UserError
    where a metric is missing.

    metrics: a data frame, one row per run, columns model, seed, input and the metrics
    draws: {model: (seeds, draws)}, the protocol's metric on resampled pictures; dataset: its name
    """
    first, names = protocol.metric, list(protocol.columns)
    if not set(names) <= set(metrics):
        raise UserError(f"{dataset}: the runs' metrics lack {', '.join(set(names) - set(metrics))}")
    # COCO's -1, nobody to find, is blank
    metrics = metrics.assign(**{name: (protocol.per_cent * metrics[name]).where(metrics[name] >= 0) for name in names})
    rows = []
    for (model, size), runs in metrics.groupby(["model", "input"], sort=False):
        _, low, high = mean_and_interval(runs[first].to_numpy(), protocol.per_cent * draws[model])
        bounds = {f"{first} low": low, f"{first} high": high}
        about = {"model": model, "seeds": len(runs), "data": dataset, "input": size}
        rows.append(about | runs[names].mean().to_dict() | bounds)
    order = [first, f"{first} low", f"{first} high", *(name for name in names if name != first)]
    return pd.DataFrame(rows)[["model", "seeds", "data", "input", *order]]


def published_table(models, protocol):
    """Return the published validation results of the networks that `models` are or vary (rsn18-prm: rsn18): a data
    frame, one row each, metrics in per cent; None where there are none."""
    others = _published_validation(protocol, {base_model(model) for model in models})
    columns = ["model", "source", "data", "input", *protocol.columns]
    return None if others.empty else others[columns].reset_index(drop=True)


def base_model(name):
    """Return the published model of which `name` is an ablation: the name without its suffix (rsn18-prm: rsn18)."""
    return name if name.endswith("-mmpose") else name.split("-")[0]


def evaluation_table(variants, protocol):
    """Return the gain of the flip test and of each decoding: a data frame, one row per run and way, the protocol's
    `variants` in per cent and their gain over the plainest way (no flip test, a quarter of a cell) in points.

    variants: a data frame, one row per run and way, columns model, seed, flip_test, decoding and metrics
    """
    plain = variants[~variants["flip_test"] & (variants["decoding"] == "quarter")].set_index(["model", "seed"])
    runs = pd.MultiIndex.from_frame(variants[["model", "seed"]])
    flip_test = variants["flip_test"].map({True: "yes", False: "no"})
    table = variants[["model", "seed"]].assign(**{"flip test": flip_test, "decoding": variants["decoding"]})
    for name in protocol.variants:
        table[name] = protocol.per_cent * variants[name]
        table[f"{name} gain"] = table[name] - protocol.per_cent * plain.loc[runs, name].to_numpy()
    return table


def ablation_table(metrics, draws, models, costs, protocol):
    """Return models side by side, the first of them the reference: a data frame of each model's cost, metric with its
    interval, difference from the reference with the interval of a paired bootstrap, and published metrics; per cent.

    metrics, draws: as for `results_table`; costs: {model: (parameters, multiply-adds)}
    """
    first = protocol.metric
    values = {model: protocol.per_cent * metrics.loc[metrics["model"] == model, first].to_numpy() for model in models}
    draws = {model: protocol.per_cent * draws[model] for model in models}
    reference, rows = models[0], []
    for model in models:
        own = mean_and_interval(values[model], draws[model])
        difference = (float("nan"),) * 3
        if model != reference:
            difference = paired_difference(values[model], draws[model], values[reference], draws[reference])
        parameters, multiply_adds = costs[model]
        rows.append([model, parameters / 1e6, multiply_adds / 1e9, *own, *difference])
    columns = ["model", "parameters (M)", "multiply-adds (G)"]
    columns += [f"{name}{end}" for name in (first, "difference") for end in ("", " low", " high")]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(1, "input", [metrics.loc[metrics["model"] == model, "input"].iloc[0] for model in models])
    verdicts = [table["difference low"] > 0, table["difference high"] < 0, table["model"] == reference]
    table["verdict"] = np.select(verdicts, ["higher", "lower", "reference"], "no difference shown")
    others = _published_validation(protocol, models).drop_duplicates(["model", "source"])
    for source, numbers in others.groupby("source", sort=False):
        table[source] = table["model"].map(numbers.set_index("model")[first])
    return table


def server_table(dataset, protocol):
    """Return the published metrics of the data set's test people, per cent, in the layout of the paper; None where
    nothing was published. Their annotations are not public: only the data set's own server can judge our runs."""
    others = published(protocol)
    rows = others[(others["dataset"] == dataset) & others["split"].str.startswith("test")]
    return (
        None
        if rows.empty
        else rows.drop(columns="dataset").rename(columns={"gflops": "multiply-adds (G)"}).dropna(axis=1, how="all")
    )


# ---- words


def differences(ablations, dataset, protocol, seeds):
    """Return the verdicts of a data set's ablation tables in words: a Markdown list and its basis.

    ablations: {name: table of `ablation_table`}; seeds: the number of seeds
    """
    lines = [f"- {name}: {findings(table, protocol.title)}\n" for name, table in ablations.items()]
    if not lines:
        return "No group of `ablations` in `params.yaml` has two of the models that are run.\n"
    return "".join(lines) + f"\nTrainings on {dataset}. {_about_differences(seeds)}{_warning(dataset)}\n"


def findings(table, title):
    """Return the verdict on each model of an ablation in words. table: of `ablation_table`; title: of the metric"""
    reference, parts = table["model"][0], []
    for row in table[1:].to_dict("records"):
        numbers = f"{row['difference']:+z.1f} {title} [{row['difference low']:z.1f}, {row['difference high']:z.1f}]"
        if row["verdict"] == "no difference shown":
            parts.append(f"{row['model']} shows no difference to {reference} ({numbers})")
        else:
            parts.append(f"{row['model']} scores {row['verdict']} than {reference} ({numbers})")
    return f"{'; '.join(parts)}."


def limits(table, title, people, seeds):
    """Return what an ablation cannot show in words.

    table: of `ablation_table`; title: of the metric; people: those judged; seeds: number
    """
    half = ((table["difference high"] - table["difference low"]) / 2).max()
    others = "other seeds may turn a difference round" if seeds == 1 else f"each model is the mean of {seeds} seeds"
    few = f"With {people:,} validation people, differences below about {half:.1f} {title} cannot be shown"
    return f"{few}. Between trainings, {others}."


def results_caption(protocol, seeds, made):
    """Return the caption of a results table. seeds: their number; made: the `origin` of the runs"""
    return f"{_about_metrics(protocol, seeds)} Trainings: {made}"


def published_caption(dataset, protocol):
    """Return the caption of a table of published results, for a page about runs on a data set."""
    others = published(protocol)["dataset"][0]
    apart = "" if dataset == others else f" Other people, other trainings: not to be compared with those on {dataset}."
    return f"{protocol.description}, per cent, as published on {others.upper()} val.{apart}"


def ablation_caption(protocol, seeds, made):
    """Return the caption of an ablation table. seeds: their number; made: the `origin` of the runs"""
    text = f"{_about_metrics(protocol, seeds)} {_about_differences(seeds)} Trainings: {made}"
    if not protocol.published:
        return text
    return f"{text} Columns named for a source: as published, on {published(protocol)['dataset'][0].upper()} val."


def evaluation_caption(made):
    """Return the caption of a table of ways of evaluating. made: the `origin` of the runs"""
    return (
        "Without and with flip test, decoded by a quarter of a cell (the paper's) and by DARK, per cent; gain: points "
        f"over no flip test and a quarter of a cell. {made}"
    )


def _about_metrics(protocol, seeds):
    """Explain the metrics, and the brackets behind them."""
    interval = f"one seed, in brackets the 95 % interval over people (bootstrap, {DRAWS:,} draws)"
    if seeds > 1:
        interval = f"means over {seeds} seeds, in brackets the 95 % interval over seeds (Student's t)"
    return f"{protocol.description}, per cent; {interval}."


def _about_differences(seeds):
    """Explain differences and their verdicts."""
    between = f"means over {seeds} seeds" if seeds > 1 else "single trainings: other seeds may differ"
    return (
        f"Differences: with the 95 % interval of a paired bootstrap over people ({DRAWS:,} draws, the same for every "
        f"model), and called higher or lower only where it leaves out 0. They are between {between}."
    )


def origin(dataset, people, iterations, batch_size, machine, fingerprints, detected=False):
    """Return the provenance of a data set's runs, for a caption.

    people: {"train": count, "val": count}; detected: True where the validation people are in a detector's boxes
    iterations: of batch_size people; machine: the trainer's hardware and software; fingerprints: {subject: fingerprint}
    """
    boxes = "a detector's boxes" if detected else "true boxes"
    epochs = iterations * batch_size / people["train"]
    marks = ", ".join(f"{name} {mark}" for name, mark in fingerprints.items())
    return (
        f"{dataset}, {people['train']:,} people to train on, {people['val']:,} to validate on in {boxes}; "
        f"{iterations:,} iterations of {batch_size} people ({epochs:.3g} epochs) on {machine}; "
        f"fingerprints: {marks}.{_warning(dataset)}"
    )


def _warning(dataset):
    """Return the warning that numbers on drawn people need; "" for any other data set."""
    return " Drawn people: these numbers say nothing about COCO." if is_drawn(dataset) else ""


def is_drawn(dataset):
    """Return True for a data set of drawn people: demo, and those named demo-..."""
    return dataset.split("-")[0] == "demo"


# ---- files


def write_table(table, folder, name, caption, decimals=1, formats=()):
    """Write `table` with its caption as <name>.md, .csv and .tex (for booktabs and graphicx) in `folder`, and return
    the Markdown. The CSV has all columns, no caption and four decimals; the others are as of `as_text`."""
    folder, (text, align) = Path(folder), as_text(table, decimals, formats)
    with whole_file(folder / f"{name}.csv", "w") as file:
        table.to_csv(file, index=False, float_format="%.4f", lineterminator="\n")
    markdown = f"{_markdown(text, align)}\n\n{caption}\n".replace("<", "&lt;")  # Markdown passes HTML on
    with whole_file(folder / f"{name}.md", "w") as file:
        file.write(markdown)
    layout = {"column_format": "".join(side[0] for side in align), "hrules": True, "position_float": "centering"}
    source = text.map(latex).rename(columns=latex).style.hide(axis="index").to_latex(caption=latex(caption), **layout)
    source = source.replace(r"\begin{tabular}", SHRINK + "\n\\begin{tabular}")
    with whole_file(folder / f"{name}.tex", "w") as file:
        file.write(source.replace(r"\end{tabular}", r"\end{tabular}}"))
    return markdown


def as_markdown(table, decimals=1, formats=()):
    """Return `table` as Markdown, of the texts of `as_text`."""
    return _markdown(*as_text(table, decimals, formats)).replace("<", "&lt;")


def _markdown(text, align):
    return text.to_markdown(index=False, colalign=align, disable_numparse=True)


def as_text(table, decimals=1, formats=()):
    """Return `table` as texts and the alignment of each column: numbers are rounded, blank where there is none, and an
    interval, the columns "x low" and "x high", stands in brackets behind x.

    formats: {column: format string} of the columns that `decimals` does not suit
    """
    numbers = table.select_dtypes("float").columns
    formats = dict.fromkeys(numbers, f"{{:.{decimals}f}}") | dict(formats)
    rounded = {column: table[column].map(style.format, na_action="ignore") for column, style in formats.items()}
    text = table.assign(**rounded).astype(object)
    text = text.where(text.notna(), "")
    for column in [column for column in table if f"{column} low" in table]:
        bounds = zip(text.pop(f"{column} low"), text.pop(f"{column} high"))
        text[column] += [f" [{low}, {high}]" if low else "" for low, high in bounds]
    return text, ["right" if column in numbers else "left" for column in text]


def latex(text):
    """Return `text` with LaTeX's special characters escaped, and without Markdown's backticks."""
    return str(text).translate(LATEX)
