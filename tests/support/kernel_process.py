"""A process that looks like a guest's kernel: it holds a file without a name as large as a memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SCRIPT = "import tempfile; memory = tempfile.TemporaryFile(); memory.truncate(1 << 20); print(1); input()"


@contextmanager
def kernel_process(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Iterator[int]:
    """Run one with a command line of these words, and yield its pid."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        try:
            # It has its memory a moment after it was started.
            assert running.stdout is not None
            assert running.stdout.read(1)
            yield running.pid
        finally:
            running.communicate(b"\n")
