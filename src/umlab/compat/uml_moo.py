"""``uml_moo``: the merger of COW files of uml-utilities, replaced.

Callers read its options, its messages and its status, so those are the original's; what differs on
purpose is listed in docs/reference/uml_moo-differences.md.
"""

from __future__ import annotations

import errno
import os
import sys

from umlab.compat._interrupt import Interruptible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

#: What the output file can say that has been opened.
_WHILE_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; does not return when a signal ends it.

    Args:
        argv: Its name and its options, by default the process's own.

    Returns:
        The exit status: 1 for the usage, and for an error that is explained on standard error.
    """
    program, *words = sys.argv if argv is None else argv
    in_place, backing = False, None
    while words:
        if words[0] == "-d" and not in_place:
            in_place = True
            del words[0]
        elif words[0] == "-b" and backing is None and len(words) > 1:
            backing = words[1]
            del words[:2]
        else:
            break
    if len(words) != (1 if in_place else 2) or words[0] == "-b":
        sys.stderr.write(usage(os.path.basename(program)))
        return 1
    with Interruptible():
        return _merge(words, backing)


def usage(program: str) -> str:
    """Return the options in a few words each."""
    return f"""{program} usage:
\t{program} [ -b <actual backing file> ] <COW file> <new backing file>
\t{program} [ -b <actual backing file> ] -d <COW file>
Merges a COW file and its backing file into a new image. With -d the image
takes the place of the backing file. With -b that is another file than the COW
file says, as in a chroot jail. COW files may be of version 1, 2 or 3.
"""


def _merge(words: list[str], backing: str | None) -> int:
    """Merge a COW file into a second word's file, or with one word in place."""
    from umlab.errors import LabError
    from umlab.guest.disk.cow_check import other_dependents
    from umlab.guest.disk.cow_merge import merge_cow, merge_in_place

    problem = _problem(words[0], backing)
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    try:
        if len(words) == 2:
            merge_cow(words[0], words[1], backing=backing, replace=True)
            return 0
        _, others = other_dependents(words[0], backing=backing)
        merge_in_place(words[0], backing=backing, done=lambda _: _tell(others))
    except LabError as error:
        if isinstance(cause := error.__cause__, OSError):
            what = "Writing data" if cause.errno in _WHILE_WRITING else "Output file open"
            print(f"{what}: {cause.strerror}", file=sys.stderr)
        else:
            print(f"uml_moo: {error}", file=sys.stderr)
        return 1
    return 0


def _tell(others: list[str]) -> None:
    """Say which COW files are of no use any more."""
    if others:
        print(f"uml_moo: of no use any more: {', '.join(others)}", file=sys.stderr)


def _problem(path: str, backing: str | None) -> str | None:
    """Say why files cannot be merged, in the original's words."""
    from umlab.errors import LabError
    from umlab.guest.disk.cow import Backing, CowFile

    try:
        cow = CowFile(path)
    except LabError as error:
        cause = error.__cause__
        return (
            f"COW file open: {cause.strerror}" if isinstance(cause, OSError) else "Reading COW header failed"
        )
    with cow:
        if cow.header.broken:
            print("read_cow_header - broken V3 file with 64-bit layout - recovering content.", flush=True)
        try:
            image = Backing(backing or cow.backing)
        except LabError as error:
            if isinstance(cause := error.__cause__, OSError):
                return f"Stating backing file: {cause.strerror}"
            return str(error)
        with image:
            problem = image.mismatch(cow.header, path)
    return None if problem is None else problem.problem


if __name__ == "__main__":
    sys.exit(main())
