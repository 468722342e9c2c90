"""The start of ``umlab``: in the third of a second that imports take an interrupt ends it without a word."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum


def main() -> None:
    """Run the command line."""
    handler = _signal.getsignal(_signal.SIGINT)
    # Where the caller ignores interrupts, they stay so.
    if handler is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from umlab.cli import app

    if handler is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, handler)
    app.main()
