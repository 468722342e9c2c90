"""Whether a process lives, as a test that waits for its end has to know it."""

from __future__ import annotations

from pathlib import Path


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has reaped yet has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True
    # pid (name) state ...; the name may hold anything, also ')'.
    return stat.rpartition(b")")[2].split()[0] in (b"Z", b"X")
