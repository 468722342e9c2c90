"""How many descriptors a switch or a keeper may have open: as many as its hard limit allows.

What it starts does not inherit that: a program that uses ``select`` cannot cope with numbers from 1024 on,
which is why the soft limit is lower.
"""

from __future__ import annotations

import contextlib
import resource

_inherited: int | None = None


def raise_descriptor_limit(inherited: int | None = None) -> None:
    """Raise the soft limit to the hard one, where the system lets us.

    Args:
        inherited: The soft limit that programs which we start are to have; ours by now, unless given.
    """
    global _inherited
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _inherited is None:
        _inherited = soft if inherited is None else inherited
    if soft != hard:
        # Refused where fs.nr_open has been lowered below the hard limit.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def inherited_descriptor_limit() -> int:
    """Return the soft limit that this process had before it was raised."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if _inherited is None else _inherited


def descriptor_limit_hint() -> str:
    """Return what to say where descriptors have run out: the limit, and how to raise it."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"the limit is {limit}; raise the hard one (ulimit -Hn, LimitNOFILE= of a service)"
