# ruff: noqa: E501, the report's paragraphs
"""The command line: python reliability writes results/reliability.md."""

import argparse
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import pandas as pd

from reliability.malformed import MEMORY, SECONDS, fuzz
from reliability.scenarios import ITERATIONS, make_base, try_all
from reliability.soak import soak
from rsnlib.files import whole_file


def soak_section(soaked):
    """Return soak.soak's counts as text."""
    rows = pd.Series(soaked, dtype=object).drop("seconds").rename_axis("what")
    return f"""## A training killed at random moments

`python -m rsnlib train` on eight drawn people (CPU, float32), of a network a quarter as wide as ours and with a checkpoint after
every iteration, so that a kill costs little; killed again and again, most often while or just after a checkpoint is written;
sometimes the newest checkpoint is damaged besides. Each time a training ends, its weights and curves must be those of one that
nothing interrupted, byte by byte; then the next begins. {soaked["seconds"]:.0f} s.

{rows.rename("").to_markdown(disable_numparse=True)}

Every training that ended had the weights and curves of the uninterrupted one.
"""


def scenarios_section(made, rows, seconds):
    """Return the rows of scenarios.try_all as text, one table per section. made: hashes of the base"""
    tables = [
        f"### {section}\n\n{some.drop(columns='section').to_markdown(index=False, floatfmt='.0f')}\n"
        for section, some in rows.groupby("section", sort=False)
    ]
    made = pd.Series(made, name="SHA-256, first digits").rename_axis("made by the first `dvc repro`")
    return f"""## `dvc repro` wherever a user may run it

A git checkout of the project whose `params.yaml` has one small run: eight drawn people to train on and four to validate on, crops
of 64 x 64, a network of one bottleneck per level and {ITERATIONS} iterations; all stages of `dvc.yaml` are the project's. Commands
are run as a user runs them, each line in a fresh git clone, with one thread. The files made must be the bytes that the first
`dvc repro` made: all of them where every stage is run, else crops, weights and curves. {seconds:.0f} s.

{made.to_markdown(disable_numparse=True)}

{chr(10).join(tables)}"""


def inputs_section(rows, seconds):
    """Return the rows of malformed.fuzz as text, counted by kind of input."""
    counts = rows.pivot_table(index="kind", columns="verdict", values="number", aggfunc="count", fill_value=0)
    counts.insert(0, "inputs", counts.sum(axis=1))
    counts["peak memory (MiB)"] = (rows.groupby("kind")["memory"].max() / 2**20).round().astype(int)
    total = counts.sum().rename("all")
    total["peak memory (MiB)"] = counts["peak memory (MiB)"].max()
    counts = pd.concat([counts, total.to_frame().T]).rename_axis("read as")
    wrong = rows[~rows["verdict"].isin(["handled", "refused"])]
    return f"""## Malformed files

{len(rows):,} inputs, each made from a valid one: structured text with values exchanged, removed, repeated, absurd; bytes cut,
changed, inserted; headers that promise more than there is; small files that decompress to gigabytes. Each must be handled, or
refused with the project's own error that names the place, in {SECONDS} s and {MEMORY >> 30} GiB. {seconds:.0f} s.

{counts.to_markdown()}

{"None did anything else." if wrong.empty else wrong.drop(columns="memory").to_markdown(index=False)}
"""


def main():
    """Run the three trials and write the report; exit status 1 if anything was lost or got in."""
    parser = argparse.ArgumentParser(prog="python reliability", description=main.__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("-o", "--output", default="results/reliability.md")
    arguments = parser.parse_args()
    output = Path(arguments.output).resolve()
    sections, started = [], time.monotonic()

    def add(section):
        print(section, flush=True)
        sections.append(section)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        add(soak_section(soak(folder / "killed", arguments.kills)))
        begun = time.monotonic()
        base = make_base(folder / "scenarios")
        tried = try_all(base)
        add(scenarios_section(base.made, tried, time.monotonic() - begun))
        begun = time.monotonic()
        inputs = fuzz(folder / "inputs", arguments.inputs)
        add(inputs_section(inputs, time.monotonic() - begun))

    packages = [f"{name} {version(name)}" for name in ("torch", "numpy", "pillow", "safetensors")]
    made = ", ".join([f"Python {platform.python_version()}", *packages])
    command = f"python reliability --kills {arguments.kills} --inputs {arguments.inputs}"
    head = f"# Nothing is lost, nothing gets in\n\nWritten by `{command}` in {time.monotonic() - started:.0f} s; {made}; seed 0.\n"
    with whole_file(output, "w") as file:
        file.write("\n".join([head, *sections]))
    sys.exit(not (inputs["verdict"].isin(["handled", "refused"]).all() and tried["verdict"].ne("FAILED").all()))


if __name__ == "__main__":
    main()
