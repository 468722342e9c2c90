"""``uml_mkcow``: the maker of COW files of uml-utilities, replaced.

What it writes is the original's to the byte; what differs on purpose is listed in
docs/reference/uml_mkcow-differences.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from umlab.errors import UmlabError
from umlab.guest.cow import create_cow

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: Its name and its options, by default the process's own.

    Returns:
        The exit status: 2 for the usage, 1 for an error that is explained on standard error.
    """
    program, *words = sys.argv if argv is None else argv
    force = words[:1] == ["-f"]
    if force:
        del words[0]
    if len(words) < 2:
        sys.stderr.write(usage(os.path.basename(program)))
        return 2
    try:
        create_cow(words[0], words[1], replace=force, strict=False)
    except UmlabError as error:
        if isinstance(cause := error.__cause__, OSError) and os.path.exists(words[1]):
            print(f"open COW file: {cause.strerror}", file=sys.stderr)
        else:
            print(f"write_cow_header: {error}", file=sys.stderr)
        return 1
    return 0


def usage(program: str) -> str:
    """Return the options in a few words each."""
    return f"""{program} usage: 
\t{program} [-f] <COW file> <backing file>
\t-f forces overwrite of an existing COW file
"""  # noqa: W291 - as the original has it


if __name__ == "__main__":
    sys.exit(main())
