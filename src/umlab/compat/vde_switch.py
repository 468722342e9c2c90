"""``vde_switch``: the switch of Virtual Distributed Ethernet, replaced.

Callers read its options, its status, its files and its console, so those are the original's; what differs
on purpose is listed in docs/reference/vde_switch-differences.md.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import umlab
from umlab._line_writer import write_now
from umlab.compat._vde_getopt import OptionReader
from umlab.compat._vde_options import LONG, SHORT, OptionError, Options, obey, usage

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; does not return when an interrupt ends it.

    Args:
        argv: Its name and its options, by default the process's own, which ps and pgrep then show instead
            of the interpreter's command line.

    Returns:
        The exit status: 0 for an end that was asked for, 1 for the usage and for an error that is explained
        on standard error, 255 where the directory cannot be had.
    """
    # Until the switch has something to clean up, an interrupt ends it without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = sys.argv if argv is None else argv
    reader = OptionReader(words[0], LONG, SHORT, lambda text: write_now(2, text))
    given = reader.read(words[1:])
    asked = {name for name, _ in given}
    if "version" in asked:
        write_now(1, f"VDE 2.3.2\n(umlab {umlab.__version__})")
        return 0
    options = Options(os.path.basename(words[0]))
    try:
        if "help" not in asked:
            obey(options, given)
    except OptionError as error:
        write_now(2, f"{options.program}: {error}")
        return 1
    if "help" in asked or reader.words:
        write_now(1, usage(options.program))
        return 1
    if argv is None:
        from umlab.compat._process_title import show_script_command_line

        show_script_command_line(words)
    from umlab.compat._vde_process import run

    return run(options)


if __name__ == "__main__":
    sys.exit(main())
