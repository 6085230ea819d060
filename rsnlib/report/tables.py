"""Runs to tables a person reads: ours beside published numbers, as Markdown, CSV and LaTeX."""

from pathlib import Path

import pandas as pd

from rsnlib.errors import UserError
from rsnlib.files import whole_file
from rsnlib.metrics import headline
from rsnlib.metrics.bootstrap import DRAWS, mean_and_interval, paired_difference
from rsnlib.metrics.coco import FIGURES
from rsnlib.metrics.pck import GROUPS

PUBLISHED = {"coco": "published.csv", "mpii": "published_mpii.csv"}
LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {">": r"\textgreater{}", "|": r"\textbar{}", "`": ""}
    | {character: f"\\{character}" for character in "%_&#${}"}
)
SHRINK = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # to the page, where it is too wide


def published(reader, skeleton=None):
    """The published numbers for a data set of that reader, per cent: dataset, split, model, source, input and figures.
    None where nothing was published, as of a skeleton (config.Dataset.skeleton) that is not COCO's."""
    if reader not in PUBLISHED or skeleton not in (None, "coco"):
        return None
    return pd.read_csv(Path(__file__).parent / PUBLISHED[reader])


def figure_names(reader):
    """The columns of a results table."""
    return list(FIGURES) if reader == "coco" else [*GROUPS, "Mean"]


def results_table(figures, draws, dataset, settings):
    """Our models beside the published validation results of the same models, one row each, figures in per cent: means
    over the seeds; the headline figure, first, with its interval (columns "<figure> low", "<figure> high").

    figures: a data frame, one row a run (layout.load_figures); draws: {model: (seeds, draws)} (layout.load_draws)
    dataset: its name; settings: config.Dataset
    """
    names, first = figure_names(settings.reader), headline(settings.reader)
    if not set(names) <= set(figures):
        raise UserError(f"{dataset}: the runs' figures lack {', '.join(set(names) - set(figures))}")
    percent = per_cent(settings.reader)
    figures = figures.assign(**{name: (percent * figures[name]).where(figures[name] >= 0) for name in names})
    rows = []
    for (model, size), runs in figures.groupby(["model", "input"], sort=False):  # COCO's -1, nobody to count, is blank
        _, low, high = mean_and_interval(runs[first].to_numpy(), percent * draws[model])
        bounds = {f"{first} low": low, f"{first} high": high}
        rows.append({"model": model, "seeds": len(runs), "input": size} | runs[names].mean().to_dict() | bounds)
    table = pd.DataFrame(rows).assign(data=dataset, source="this run")
    others = published(settings.reader, settings.skeleton)
    if others is not None:
        others = others[(others["split"] == "val") & others["model"].isin(figures["model"].map(base_model))]
        table = pd.concat([table, others.assign(data=f"{settings.reader.upper()} val")], ignore_index=True)
    order = [first, f"{first} low", f"{first} high", *(name for name in names if name != first)]
    table = table[["model", "source", "seeds", "data", "input", *order]]
    return table.assign(seeds=table["seeds"].astype("Int64"))


def per_cent(reader):
    """What makes a data set's figures per cent: COCO's are fractions."""
    return 100 if reader == "coco" else 1


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


def ablation_table(figures, draws, models, costs, settings):
    """Models side by side, the first of them the reference: what each costs, its headline figure with its interval, its
    difference to the reference with the interval of a paired bootstrap, in per cent, and what was published.

    figures, draws and settings: as for `results_table`
    costs: {model: (parameters, multiply-adds)}
    """
    first, percent = headline(settings.reader), per_cent(settings.reader)
    runs = {model: percent * figures.loc[figures["model"] == model, first].to_numpy() for model in models}
    rows = []
    for model in models:
        figure = mean_and_interval(runs[model], percent * draws[model])
        own, reference = ((runs[name], percent * draws[name]) for name in (model, models[0]))
        difference = paired_difference(*own, *reference) if model != models[0] else (float("nan"),) * 3
        rows.append([model, *(number / unit for number, unit in zip(costs[model], (1e6, 1e9))), *figure, *difference])
    columns = ["model", "parameters (M)", "multiply-adds (G)"]
    columns += [f"{name}{end}" for name in (first, "difference") for end in ("", " low", " high")]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(1, "input", [figures.loc[figures["model"] == model, "input"].iloc[0] for model in models])
    table["verdict"] = ["reference", *map(verdict, table["difference low"][1:], table["difference high"][1:])]
    others = published(settings.reader, settings.skeleton)
    if others is not None:
        others = others[(others["split"] == "val") & others["model"].isin(models)]
        for source, numbers in others.drop_duplicates(["model", "source"]).groupby("source", sort=False):
            table[source] = table["model"].map(numbers.set_index("model")[first])
    return table


def verdict(low, high):
    """What the interval of a difference says."""
    return "higher" if low > 0 else "lower" if high < 0 else "no difference shown"


def differences(ablations, dataset, reader, seeds):
    """What the ablation tables of a data set, {name: table}, say in words: a Markdown list and what it rests on."""
    said, figure = [], headline(reader)
    for name, table in ablations.items():
        reference, parts = table["model"][0], []
        for row in table[1:].to_dict("records"):
            numbers = f"{row['difference']:+z.1f} {figure} [{row['difference low']:.1f}, {row['difference high']:.1f}]"
            if row["verdict"] == "no difference shown":
                parts.append(f"between {row['model']} and {reference} no difference is shown ({numbers})")
            else:
                parts.append(f"{row['model']} scores {row['verdict']} than {reference} ({numbers})")
        said.append(f"- {name}: {'; '.join(parts)}.\n")
    if not said:
        return "No group of `ablations` in `params.yaml` has two of the models that are run.\n"
    return "".join(said) + f"\nTrainings on {dataset}. {_differences(seeds)}{_warning(dataset)}\n"


def server_table(dataset, settings):
    """What was published of the data set's test people, per cent, in the layout of the paper; None where nothing was.
    Their annotations are not public: only the data set's own server can judge ours."""
    others = published(settings.reader, settings.skeleton)
    if others is None or dataset not in others["dataset"].values:
        return None
    rows = others[(others["dataset"] == dataset) & others["split"].str.startswith("test")]
    return rows.drop(columns="dataset").rename(columns={"gflops": "multiply-adds (G)"}).dropna(axis=1, how="all")


def shown(table, decimals=1, formats=()):
    """The table as a reader sees it, all text: numbers rounded, blank where there is none, and an interval, the columns
    "x low" and "x high", in brackets behind x.

    formats: {column: format string} of those that `decimals` does not suit
    """
    formats = dict.fromkeys(table.select_dtypes("float"), f"{{:.{decimals}f}}") | dict(formats)
    rounded = {column: table[column].map(style.format, na_action="ignore") for column, style in formats.items()}
    text = table.assign(**rounded).astype(object)
    text = text.where(text.notna(), "")
    for column in [column for column in table if f"{column} low" in table]:
        bounds = zip(text.pop(f"{column} low"), text.pop(f"{column} high"))
        text[column] += [f" [{low}, {high}]" if low else "" for low, high in bounds]
    return text


def write_table(table, folder, name, caption, decimals=1, formats=()):
    """`table` as <name>.md, .csv and .tex (for booktabs and graphicx) in `folder`; the caption says what the reader
    sees. Returns the Markdown.

    decimals, formats: as for `shown`; the CSV has all columns and four decimals
    """
    folder = Path(folder)
    text = shown(table, decimals, formats)
    numbers = table.select_dtypes("float").columns
    with whole_file(folder / f"{name}.csv", "w") as file:
        table.to_csv(file, index=False, float_format="%.4f", lineterminator="\n")
    align = ["right" if column in numbers else "left" for column in text]
    markdown = text.to_markdown(index=False, colalign=align, disable_numparse=True) + f"\n\n{caption}\n"
    markdown = markdown.replace("<", "&lt;")  # names from data are no HTML, which Markdown passes on
    with whole_file(folder / f"{name}.md", "w") as file:
        file.write(markdown)
    style = text.map(latex).rename(columns=latex).style.hide(axis="index")
    align = "".join(side[0] for side in align)
    source = style.to_latex(column_format=align, hrules=True, position_float="centering", caption=latex(caption))
    source = source.replace(r"\begin{tabular}", SHRINK + "\n\\begin{tabular}")
    source = source.replace(r"\end{tabular}", r"\end{tabular}}")
    with whole_file(folder / f"{name}.tex", "w") as file:
        file.write(source)
    return markdown


def latex(text):
    """`text` as LaTeX prints it; Markdown's backticks are left out."""
    return str(text).translate(LATEX)


def results_caption(settings, seeds, made):
    """What a results table says of itself. settings: config.Dataset; made: the `origin` of our rows"""
    others = "" if published(settings.reader, settings.skeleton) is None else " Other rows: as published."
    return f"{_figures(settings.reader, seeds)} Rows of `this run`: {made}{others}"


def ablation_caption(settings, seeds, made):
    """What an ablation table says of itself. settings: config.Dataset; made: the `origin` of its runs"""
    text = f"{_figures(settings.reader, seeds)} {_differences(seeds)} Trainings: {made}"
    if published(settings.reader, settings.skeleton) is None:
        return text
    return f"{text} Columns named for a source: as published, on {settings.reader.upper()} val."


def _figures(reader, seeds):
    """What figures are, and the brackets behind them."""
    kind = "Average precision and recall by object keypoint similarity" if reader == "coco" else "Correct keypoints"
    if seeds > 1:
        return f"{kind}, per cent; means over {seeds} seeds, in brackets the 95 % interval over seeds (Student's t)."
    return f"{kind}, per cent; one seed, in brackets the 95 % interval over people (bootstrap, {DRAWS:,} draws)."


def _differences(seeds):
    """What differences and their verdicts are."""
    text = (
        f"Differences: with the 95 % interval of a paired bootstrap over people ({DRAWS:,} draws, the same for every "
        "model), and called higher or lower only where it leaves out 0."
    )
    if seeds > 1:
        return f"{text} They are between means over {seeds} seeds."
    return f"{text} They are between single trainings: other seeds may differ."


def evaluation_caption(made):
    """What a table of the ways of evaluating says of itself. made: the `origin` of its runs"""
    return (
        "Without and with flip test, decoded by a quarter of a cell (the paper's) and by DARK, per cent; gain: points "
        f"over no flip test and a quarter of a cell. {made}"
    )


def origin(dataset, people, iterations, batch_size, machine, fingerprints, detected=False):
    """Where our numbers come from, for a caption.

    people: {"train": how many, "val": how many}; detected: whether these are in a detector's boxes
    iterations: of batch_size people; machine: what trained; fingerprints: {of what: it}
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
    """What a reader of the demo's numbers must know."""
    return " Drawn people, a short recipe: these numbers say nothing about COCO." if dataset == "demo" else ""
