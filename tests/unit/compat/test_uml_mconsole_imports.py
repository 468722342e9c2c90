"""What starting ``uml_mconsole`` costs is mostly imports: the expensive ones are banned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from umlab.testing import SimulatedGuests

BANNED = {
    "argparse",
    "asyncio",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "inspect",
    "logging",
    "pathlib",
    "re",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "typing",
}

# site may import anything for a user's or a distribution's .pth files; what counts is what we add.
PROGRAM = """
import sys
before = set(sys.modules)
from umlab.compat.uml_mconsole import main
status = main()
print(*sorted(set(sys.modules) - before), file=sys.stderr)
sys.exit(status)
"""


def test_version_imports_nothing_expensive(short_dir: Path) -> None:
    with SimulatedGuests(short_dir) as guests:
        path = guests.add("m1").path
        done = subprocess.run(
            # -S: without .pth files, which may have imported a banned module before us and hide ours.
            [sys.executable, "-S", "-c", PROGRAM, str(path), "version"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
            capture_output=True,
            text=True,
        )
    assert (done.returncode, done.stdout) == (
        0,
        "OK Linux (none) 6.1.176 #1 Sat Jul  4 15:38:16 UTC 2026 x86_64\n",
    )
    imported = set(done.stderr.split())
    assert {"umlab.mconsole.sync", "umlab.wire.mconsole"} <= imported
    assert imported & BANNED == set()
