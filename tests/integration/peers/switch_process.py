"""``umlab switch run`` as a process, and what it prints."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from support.deadline import scaled

UMLAB = Path(sys.executable).with_name("umlab")


class RunningSwitch:
    """``umlab switch run --json`` and its records so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.records: list[dict[str, Any]] = []

    def wait_for(self, event: str) -> dict[str, Any]:
        """Read records until one of a kind comes."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.records.append(json.loads(line))
            if self.records[-1]["event"] == event:
                return self.records[-1]
        raise AssertionError(f"no {event} before the end; {self.records}")


@contextlib.contextmanager
def switch_run(
    *options: str, runtime: Path | None = None, stderr: int | None = None, within: Sequence[str] = ()
) -> Iterator[RunningSwitch]:
    """Run a switch until the block ends, by a program that runs others if one is given."""
    process = subprocess.Popen(
        [*within, UMLAB, "switch", "run", *options, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=os.environ | ({"XDG_RUNTIME_DIR": str(runtime)} if runtime else {}),
    )
    with process:
        try:
            yield RunningSwitch(process)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(scaled(20))
