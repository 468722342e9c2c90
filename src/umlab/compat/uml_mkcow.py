"""``uml_mkcow``: the maker of COW files of uml-utilities, replaced.

What it writes is the original's to the byte; what differs on purpose is listed in
docs/reference/uml_mkcow-differences.md.
"""

from __future__ import annotations

import os
import sys

from umlab.compat._interrupt import Interruptible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; does not return when a signal ends it.

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
    with Interruptible():
        return _create(words[0], words[1], force)


def usage(program: str) -> str:
    """Return the options in a few words each."""
    return f"""{program} usage: 
\t{program} [-f] <COW file> <backing file>
\t-f forces overwrite of an existing COW file
"""  # noqa: W291 - as the original has it


def _create(path: str, backing: str, force: bool) -> int:
    from umlab.errors import UmlabError
    from umlab.guest.disk.cow import create_cow

    try:
        create_cow(path, backing, replace=force, strict=False)
    except UmlabError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and os.access(backing, os.R_OK, effective_ids=True):
            print(f"open COW file: {cause.strerror}", file=sys.stderr)
        else:
            print(f"write_cow_header: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
