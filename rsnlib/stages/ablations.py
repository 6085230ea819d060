"""Stage `ablations`: models of params.yaml side by side, a question at a time. Nothing here loads a network."""

from dataclasses import asdict, dataclass
from io import StringIO

import pandas as pd
from ruamel.yaml import YAML

from rsnlib.config import load_params
from rsnlib.report import tables
from rsnlib.stages.layout import runs
from rsnlib.stages.results import load_curves, load_report
from rsnlib.stages.tables import compare, judge_of


@dataclass(frozen=True)
class Ablation:
    """One group of `ablations` in params.yaml: those of its models that ran, the first of them the reference."""

    introduction: str  # Markdown: the question, and the lines of params.yaml with what differs
    table: pd.DataFrame  # of tables.ablation_table
    curves: pd.DataFrame  # of results.load_curves, with the column people: those seen
    says: str  # what the numbers show, and what they cannot show


def ablations(dataset):
    """Return each ablation of which two models ran on a data set: {name: Ablation}."""
    params, judge, curves = load_params(), judge_of(dataset), load_curves(dataset)
    people = load_report(dataset, *runs(dataset)[0])["people"]
    curves["people"] = people["train"] * curves["epoch"]
    found = {}
    for name, table in compare(dataset).items():
        models, says = list(table["model"]), tables.findings(table, judge.title)
        cannot = tables.limits(table, judge.title, people["val"], len(params.run.seeds))
        own = curves[curves["model"].isin(models)]
        found[name] = Ablation(introduction(params, name, models), table, own, f"On {dataset}: {says} {cannot}")
    return found


def introduction(params, name, models):
    """Return an ablation's heading, its question and its lines of params.yaml, Markdown."""
    reference, *others = models
    question = params.questions.get(name, f"How does {reference} compare with {', '.join(others)}?")
    lines = [f"{reference}: {as_yaml(params.run.models[reference])}"]
    for model in others:
        differs = differing(params.model(model), params.model(reference))
        lines.append(f"{model}: {as_yaml(params.run.models[model])} # {as_yaml(differs)[1:-1]}")
    return "\n".join([f"## {name}", "", question, "", "```yaml", *lines, "```"])


def differing(model, reference):
    """Return the fields of a config.Model, {name: value}, that a reference has otherwise."""
    own, other = (asdict(each.architecture) | asdict(each.training) for each in (model, reference))
    return {name: value for name, value in own.items() if value != other[name]}


def as_yaml(line):
    """Return a line of params.yaml, {field: value}, as params.yaml writes it."""
    text, yaml = StringIO(), YAML()
    yaml.default_flow_style, yaml.width = True, 1000
    yaml.representer.ignore_aliases = lambda data: True
    yaml.dump(line, text)
    return text.getvalue().strip()
