"""Errors that speak to the user, and the signals by which the user stops a computation."""

import contextlib
import signal
import threading


class UserError(Exception):
    """Fault in the user's input: the message says what is wrong, where (file, key or id) and what to do.

    Notebooks and the command line show the message alone, without a stack trace.
    """

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


class Stopped(UserError):
    """Computation stopped by the user, with Ctrl-C or SIGTERM: the message says how to go on."""


@contextlib.contextmanager
def termination():
    """Yield an event that Ctrl-C and SIGTERM set, instead of ending the process. Outside the main thread, where signals
    do not arrive, the event is never set."""
    event = threading.Event()
    hears = threading.current_thread() is threading.main_thread()
    kinds = (signal.SIGINT, signal.SIGTERM) if hears else ()
    before = {kind: signal.signal(kind, lambda *_: event.set()) for kind in kinds}
    try:
        yield event
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
