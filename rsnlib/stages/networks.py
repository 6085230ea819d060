"""Stage `networks`: cost and receptive fields of every network."""

from dataclasses import asdict

import pandas as pd

from rsnlib.config import Model, load_params, project_root
from rsnlib.data.skeletons import SKELETONS
from rsnlib.files import fingerprint
from rsnlib.metrics import headline
from rsnlib.report import cost
from rsnlib.report.tables import published, write_table
from rsnlib.stages.layout import code_fingerprint


def networks():
    """Write the tables of what every network of params.yaml costs and how far its blocks see; returns both. Lines of
    `models` that only train a network otherwise are left out."""
    lines = load_params().models.items()
    models = {name: line.architecture for name, line in lines if line == Model(**asdict(line.architecture))}
    table = cost.networks(models)
    table = pd.DataFrame(
        {
            "model": table["model"],
            "input": table["input"],
            "parameters (M)": table["parameters"] / 1e6,
            "multiply-adds (G)": table["multiply_adds"] / 1e9,
            "published (G)": table["published"] / 1e9,
            "ratio": table["ratio"],
        }
    )
    fields = cost.receptive_fields(models)
    fields.columns = [f"branch {name}" if isinstance(name, int) else name for name in fields.columns]
    folder = project_root() / "results" / "networks"
    marks = fingerprint({name: asdict(model) for name, model in models.items()}), code_fingerprint("networks")
    made = "Fingerprints: parameters {}, code {}.".format(*marks)
    text = f"Cost of every network of params.yaml for one person; published: the paper's GFLOPs. {made}"
    write_table(table, folder, "networks", text, decimals=3)
    text = f"Receptive fields, in cells of the block's input, that reach the end of each branch of a block. {made}"
    write_table(fields, folder, "receptive-fields", text)
    return table, fields


def untrained_fields(kinds):
    """The same of untrained networks. kinds: a (block, branches) a row"""
    fields = {}
    for block, branches in kinds:
        name = block.replace("_", " ") + (f"\n{branches} branches" if branches > 1 else "")
        fields[name] = cost.untrained_fields(block, branches), cost.field_sizes(block, branches)
    return fields


def published_costs(reader):
    """The published validation accuracy of every network of params.yaml on a data set of that reader, against its cost:
    a data frame with columns model, source, input, multiply_adds (G, counted here as for ours) and accuracy (%)."""
    models = load_params().models
    table = published(reader).query("split == 'val'").dropna(subset="input")
    table = table[table["model"].isin(models.keys())]
    sizes = [tuple(map(int, size.split("x"))) for size in table["input"]]
    keypoints = len(SKELETONS[reader])
    counts = [
        cost.cost(models[model].architecture, keypoints, size)[1] / 1e9 for model, size in zip(table["model"], sizes)
    ]
    table = table.assign(multiply_adds=counts).rename(columns={headline(reader): "accuracy"})
    return table[["model", "source", "input", "multiply_adds", "accuracy"]]
