"""A process that has no descriptor left for a socket."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def out_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[OSError]]:
    """Let no socket be made, and yield a list of what was answered instead."""
    failures: list[OSError] = []

    def exhausted(*_: object) -> socket.socket:
        failures.append(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        raise failures[-1]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", exhausted)
        yield failures
