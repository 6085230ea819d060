"""Notebooks as stages: executed by papermill, the executed copy kept for the site."""

import re
import signal
import sys
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import DeadKernelError

from rsnlib.config import project_root, run_name
from rsnlib.errors import UserError
from rsnlib.files import whole_file
from rsnlib.stages.layout import notebooks_path
from rsnlib.stages.provenance import made_by

WIDGET = "application/vnd.jupyter.widget-view+json"


def run_notebook(name, parameters):
    """Execute notebooks/<name>.ipynb with papermill; the executed copy goes to work/notebooks/, for the site.

    parameters: dataset where the notebook is about one, model and seed where the notebook is about one run
    Output appears on the terminal as it comes. A UserError inside the notebook is raised here, with its message alone.
    """
    root = project_root()
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise UserError(f"{source}: no such notebook")
    made_by(name, parameters)  # before anything is executed
    where = Path(parameters.get("dataset", ""), name)
    if "model" in parameters:
        where /= run_name(parameters["model"], parameters["seed"])
    executed = notebooks_path(f"{where}.ipynb")
    executed.parent.mkdir(parents=True, exist_ok=True)
    stopped = []

    def stop(*received):
        """Pass SIGTERM on to the kernel, where a training answers by saving its checkpoint."""
        stopped.append(received)
        for child in psutil.Process().children():
            child.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        papermill.execute_notebook(
            str(source),
            str(executed),
            parameters,
            cwd=str(root),
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            coalesce_streams=True,
            # photographs: JPEG keeps the pages small
            extra_arguments=["--IPKernelApp.log_level=CRITICAL", "--InlineBackend.figure_formats=jpeg"],
        )
    except papermill.PapermillExecutionError as error:
        print(file=sys.stderr)  # a progress bar leaves its line open
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        print("\n".join(error.traceback), file=sys.stderr)
        raise UserError(f"{source.relative_to(root)} failed: {error.ename}: {error.evalue}; see {executed}") from None
    except DeadKernelError:
        print(file=sys.stderr)
        why = "stopped by SIGTERM" if stopped else "its kernel died; is there too little memory?"
        raise UserError(f"{source.relative_to(root)}: {why}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
    clean_notebook(executed, made_by(name, parameters))


def clean_notebook(path, about):
    """Take out of an executed notebook what is of no interest to a reader or different each time: papermill's own cell,
    progress bars, times, objects' addresses. Equal results leave equal bytes.

    about: of `made_by`, kept in the notebook's metadata
    """
    notebook = nbformat.read(path, 4)
    kept = {key: value for key, value in notebook.metadata.items() if key == "kernelspec"}
    notebook.metadata = nbformat.from_dict(kept | {"rsnlib": about})
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_a_result(output)]
            for data in (output["data"] for output in cell.outputs if "text/plain" in output.get("data", {})):
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", data["text/plain"])
    with whole_file(path, "w") as file:
        nbformat.write(notebook, file)


def _is_a_result(output):
    return output.get("name") != "stderr" and WIDGET not in output.get("data", {})
