"""Stage `networks`: cost and receptive fields of every network."""

from dataclasses import asdict

import numpy as np
import pandas as pd

from rsnlib.config import load_params
from rsnlib.data.readers import READERS
from rsnlib.data.skeletons import SKELETONS
from rsnlib.files import fingerprint
from rsnlib.metrics import protocol
from rsnlib.models.published import PUBLISHED
from rsnlib.models.zoo import ZOO
from rsnlib.report import cost
from rsnlib.report.tables import published, write_table
from rsnlib.stages.layout import results_path
from rsnlib.stages.provenance import code_fingerprint


def architectures():
    """Return {name: Architecture} of the zoo and of the ablations' models that are networks of their own."""
    params = load_params()
    found = dict(ZOO)
    for name in (name for lines in params.ablations.values() for name in lines):
        architecture = params.model(name).architecture
        if architecture not in found.values():
            found[name] = architecture
    return found


def networks():
    """Write the tables of the cost and of the receptive fields of every network; returns both."""
    models = architectures()
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
    marks = fingerprint({name: asdict(model) for name, model in models.items()}), code_fingerprint("networks")
    made = "Fingerprints: parameters {}, code {}.".format(*marks)
    text = f"Cost of every network for one person; published: the paper's GFLOPs. {made}"
    write_table(table, results_path("networks"), "networks", text, decimals=3)
    text = f"Receptive fields, in cells of the block's input, that reach the end of each branch of a block. {made}"
    write_table(fields, results_path("networks"), "receptive-fields", text)
    weights = published_weights()
    counts = [cost.cost(models[network]) for network in weights.pop("network")]
    weights["parameters (M)"], weights["multiply-adds (G)"] = (np.array(counts) / [1e6, 1e9]).T
    text = "Published weights by name (MMPose, Apache-2.0): accuracy on COCO val as published, per cent, in a "
    text += "detector's boxes; cost for one person at 256x192."
    same = ["keypoints", "input", "data", "licence"]  # in every row
    write_table(weights.drop(columns=same), results_path("networks"), "weights", text)
    return table, fields


def published_weights():
    """Return the weights that others published: a data frame, one row each, columns name, network, keypoints, input,
    data, AP and AR (per cent) and licence."""
    weights = pd.DataFrame(
        {"name": name, "model": each.network, "keypoints": each.keypoints, "licence": each.licence, "source": "MMPose"}
        for name, each in PUBLISHED.items()
    )
    weights = weights.merge(published(protocol("coco")).query("split == 'val'"), how="left", on=["model", "source"])
    weights = weights.assign(data="COCO").rename(columns={"model": "network"})
    return weights[["name", "network", "keypoints", "input", "data", "AP", "AR", "licence"]]


def untrained_fields(kinds):
    """Return the effective receptive fields of untrained blocks, as heatmaps.effective_fields takes them. kinds:
    (block, branches) of each"""
    fields = {}
    for block, branches in kinds:
        name = block.replace("_", " ") + (f"\n{branches} branches" if branches > 1 else "")
        fields[name] = cost.untrained_fields(block, branches), cost.field_sizes(block, branches)
    return fields


def published_costs(reader):
    """Return the published validation accuracy of every network on a data set of that reader, against its cost: a data
    frame with columns model, source, input, multiply_adds (G, counted as for ours) and accuracy (%)."""
    models = architectures()
    table = published(protocol(reader)).query("split == 'val'").dropna(subset="input")
    table = table[table["model"].isin(models.keys())]
    keypoints = len(SKELETONS[READERS[reader].skeleton or "coco"])
    sizes = [tuple(map(int, size.split("x"))) for size in table["input"]]
    counts = [cost.cost(models[name], keypoints, size)[1] / 1e9 for name, size in zip(table["model"], sizes)]
    table = table.assign(multiply_adds=counts).rename(columns={protocol(reader).metric: "accuracy"})
    return table[["model", "source", "input", "multiply_adds", "accuracy"]]
