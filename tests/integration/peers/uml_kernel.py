"""Real guests under umlab's own guest package: which kernels there are, and a guest for one block."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.deadline import scaled
from support.require import require_program
from umlab.daemon.guest import GuestService
from umlab.guest import place
from umlab.guest.cmdline import GuestSpec

VECTOR_VARIABLE = "UMLAB_VECTOR_KERNEL"


def debian_kernel() -> str:
    """Return the kernel of Debian's ``user-mode-linux``: 6.1, daemon and vector transports, modules."""
    return str(require_program("linux.uml"))


def vector_kernel() -> str | None:
    """Return a newer kernel without the daemon transport and without modules, where there is one.

    ``make kernel`` makes it; ``UMLAB_VECTOR_KERNEL`` names another one.
    """
    named = os.environ.get(VECTOR_VARIABLE)
    path = Path(named) if named else place.data_base() / place.KERNELS / "vector-6.12/linux"
    # A named kernel that is missing must fail the tests, not shrink them.
    return str(path) if named or os.access(path, os.X_OK) else None


#: For ``pytest.mark.parametrize("kernel", KERNELS)``: the second is there only where it has been built,
#: which is no part of a test run.
KERNELS = [debian_kernel, *([vector_kernel] if vector_kernel() else [])]


@asynccontextmanager
async def running_guest(base: Path, umid: str = "guest", **fields: Any) -> AsyncIterator[GuestService]:
    """Boot a guest with the tiny root, wait until its agent answers, and end it after the block.

    Args:
        base: A directory with a short path.
        umid: Its name.
        fields: More fields of its :class:`~umlab.guest.cmdline.GuestSpec`.
    """
    fields.setdefault("kernel", debian_kernel())
    async with await GuestService.start(GuestSpec(umid, **fields), str(base)) as guest:
        await guest.ready(scaled(60))
        yield guest
