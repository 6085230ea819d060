"""Notebooks as stages: executed by papermill, kept for the site."""

import signal
import sys
from pathlib import Path

import papermill
import psutil
from nbclient.exceptions import DeadKernelError

from rsnlib.config import project_root, run_name
from rsnlib.errors import UserError
from rsnlib.report.site import clean_notebook, made_by, notebooks_folder


def run_notebook(name, parameters):
    """Execute notebooks/<name>.ipynb with papermill: the executed copy goes to work/notebooks/, for the site.

    parameters: dataset where the notebook is about one, model and seed where it is about one run. Output appears on
    the terminal as it comes. A UserError inside the notebook is raised here, with its message alone.
    """
    root = project_root()
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise UserError(f"{source}: no such notebook")
    made_by(name, parameters)  # before anything is executed
    where = Path(parameters.get("dataset", ""), name)
    if "model" in parameters:
        where /= run_name(parameters["model"], parameters["seed"])
    executed = notebooks_folder() / f"{where}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    stopped = []

    def stop(*received):
        """Pass SIGTERM on to the kernel, which a training answers by keeping its state."""
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
