"""Errors that speak to the user."""


class UserError(Exception):
    """Fault in the user's input: the message says what is wrong, where (file, key or id) and what to do.

    Notebooks and the command line show the message alone, without a stack trace.
    """

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


class Stopped(UserError):
    """Computation stopped by the user, with Ctrl-C or SIGTERM: the message says how to go on."""
