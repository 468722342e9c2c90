"""``uml_switch``: the switch of uml-utilities, replaced.

Callers read its options, its output, its status and its command line, so those are the original's; what
differs on purpose is listed in docs/reference/uml_switch-differences.md.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from umlab._line_writer import write_now
from umlab.compat._switch_options import UsageError, parse_options, usage

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; does not return when a signal ends it.

    Args:
        argv: Its name and its options, by default the process's own, which ps and pgrep then show instead
            of the interpreter's command line.

    Returns:
        The exit status: 0 at the end of input on a terminal, 1 for an error of the command line or of the
        system, which is explained on standard error.
    """
    # Until the switch has something to clean up, an interrupt ends it without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = sys.argv if argv is None else argv
    try:
        options = parse_options(words)
    except UsageError:
        write_now(2, usage(words[0]))
        return 1
    if argv is None:
        from umlab.compat._process_title import show_script_command_line

        show_script_command_line(words)
    from umlab.compat._switch_process import run

    return run(options)


if __name__ == "__main__":
    sys.exit(main())
