"""Seeing processes of a lab end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from umlab.daemon.view import LabView


@contextmanager
def process_descriptors(lab: LabView, *, daemon_only: bool) -> Iterator[list[int]]:
    """Hold descriptors of a lab's processes, each readable once its process has ended.

    Args:
        lab: The lab, which still runs.
        daemon_only: Leave the keeper out.
    """
    with ExitStack() as stack:
        descriptors = []
        for pid in {lab.pid} if daemon_only else {lab.pid, lab.keeper_pid}:
            try:
                descriptors.append(os.pidfd_open(pid))
            except ProcessLookupError:
                continue
            stack.callback(os.close, descriptors[-1])
        yield descriptors
