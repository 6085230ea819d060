"""Notebooks as stages: executed by papermill, the executed copy kept for the site."""

import contextlib
import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor, wait

import nbformat
import papermill
import psutil

from rsnlib.errors import Stopped, UserError, termination
from rsnlib.files import project_root, whole_file
from rsnlib.stages.layout import executed_path
from rsnlib.stages.provenance import made_by, place_in_pipeline, timed
from rsnlib.stages.site import write_site

logging.getLogger("papermill").setLevel(logging.CRITICAL)  # errors are raised, too

WIDGET = "application/vnd.jupyter.widget-view+json"


def run_notebook(name, parameters):
    """Execute notebooks/<name>.ipynb with papermill; the executed copy goes to work/notebooks/, and the site is written
    anew with it.

    parameters: dataset where the notebook is about one, model and seed where the notebook is about one run
    Output appears on the terminal as it comes. A UserError inside the notebook is raised here, with its message alone.
    Ctrl-C and SIGTERM stop the notebook, too, which runs in a process of its own: Stopped is raised.
    """
    root = project_root()
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise UserError(f"{source}: no such notebook")
    about = made_by(name, parameters)
    place = place_in_pipeline(about["stage"])
    if place:
        print(place, flush=True)
    executed = executed_path(name, parameters)
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.nullcontext() if name == "train" else timed(about["stage"]):  # a training is timed by itself
            _execute(
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
        if error.ename == "Stopped":
            raise Stopped(error.evalue) from None
        print(file=sys.stderr)  # a progress bar leaves its line open
        if error.ename == "UserError":
            raise UserError(error.evalue) from None
        print("\n".join(error.traceback), file=sys.stderr)
        raise UserError(f"{source.relative_to(root)} failed: {error.ename}: {error.evalue}; see {executed}") from None
    except RuntimeError as error:  # the kernel died, or did not start
        print(file=sys.stderr)
        raise UserError(f"{source.relative_to(root)}: {error}; is there too little memory?") from None
    clean_notebook(executed, about)
    if place:
        write_site()


def _execute(*given, **chosen):
    """Let papermill execute a notebook. Ctrl-C and SIGTERM reach its kernel as SIGTERM, which a training answers by
    saving its checkpoint; then what the notebook raised or, without that, KeyboardInterrupt is raised.

    In a thread: in the main one papermill's client would handle signals itself, and lose those that come while the
    kernel starts.
    """
    with termination() as stopped, ThreadPoolExecutor(1) as pool:
        execution, told = pool.submit(papermill.execute_notebook, *given, **chosen), set()
        while not execution.done():
            wait([execution], 0.2)
            for child in psutil.Process().children(recursive=True) if stopped.is_set() else ():
                if child.pid not in told:
                    told.add(child.pid)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.terminate()
    error = execution.exception()
    if stopped.is_set() and not isinstance(error, papermill.PapermillExecutionError):
        raise KeyboardInterrupt
    if error:
        raise error


def clean_notebook(path, about):
    """Take out of an executed notebook what is of no interest to a reader or different each time: parameters that
    papermill's own replace, progress bars, times, objects' addresses. Equal results leave equal bytes.

    about: of `made_by`, kept in the notebook's metadata
    """
    notebook = nbformat.read(path, 4)
    kept = {key: value for key, value in notebook.metadata.items() if key == "kernelspec"}
    notebook.metadata = nbformat.from_dict(kept | {"rsnlib": about})
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    given = any("injected-parameters" in each for each in tags)
    notebook.cells = [cell for cell, each in zip(notebook.cells, tags) if not (given and "parameters" in each)]
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
