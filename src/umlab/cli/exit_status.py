"""What the exit status of a command says, beside 0 and the 2 of a wrong command line."""

from __future__ import annotations

from umlab.errors import (
    LabNotRunning,
    MconsoleUnreachable,
    NoSuchGuest,
    NoSuchHook,
    NoSuchSwitch,
    UmlabError,
)

EXIT_ERROR = 1
EXIT_NOT_RUNNING = 3
#: Of commands that run another one, whose status is theirs: not in time, and what is no status of that one.
#: Source: coreutils, timeout and env.
EXIT_TIMEOUT = 124
EXIT_OWN_FAILURE = 125
#: With the number of a signal.
EXIT_SIGNAL = 128


def exit_status(error: UmlabError) -> int:
    """Return the status of a command that ends with an error of ours."""
    if isinstance(error, MconsoleUnreachable):
        missing = error.does_not_run
    else:
        missing = isinstance(error, LabNotRunning | NoSuchSwitch | NoSuchGuest | NoSuchHook)
    return EXIT_NOT_RUNNING if missing else EXIT_ERROR
