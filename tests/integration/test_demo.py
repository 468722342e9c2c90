"""``umlab demo`` as a person runs it: all of it, a part of it, and with things missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until

pytestmark = pytest.mark.integration

UMLAB = Path(sys.executable).with_name("umlab")


def start_demo(directory: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo with a folder for its files that nothing else uses."""
    return subprocess.Popen(
        [UMLAB, "demo", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(directory)},
    )


def test_demo_takes_every_step(short_dir: Path) -> None:
    with start_demo(short_dir, "--json") as demo:
        output, progress = demo.communicate(timeout=scaled(60))

    result = json.loads(output)
    assert demo.returncode == 0, progress
    assert result["ok"] is True
    assert all(step["ok"] for step in result["steps"])
    details = {step["step"]: step["detail"] for step in result["steps"]}
    assert details["left pings right"] == details["right pings left"] == "3/3 answered"
    assert {"(daemon)", "(bess)"} == {
        line.split()[3] for line in details["see both addresses in the FDB"].splitlines()
    }
    assert "eth1" in details["console: plug a second NIC into left"]
    assert list(short_dir.iterdir()) == []


def test_demo_without_a_kernel_fails_and_says_so(short_dir: Path) -> None:
    with start_demo(short_dir, "--json", "--kernel", "/nonexistent/linux") as demo:
        output, _ = demo.communicate(timeout=scaled(30))

    result = json.loads(output)
    assert demo.returncode == 1
    assert result["ok"] is False
    assert "/nonexistent/linux" in result["error"]
    assert "user-mode-linux" in result["error"]
    assert list(short_dir.iterdir()) == []


def test_demo_with_a_kernel_that_dies_shows_its_last_words(short_dir: Path) -> None:
    kernel = short_dir / "linux"
    kernel.write_text("#!/bin/sh\necho 'Kernel panic - not syncing: no reason'\nexit 134\n")
    kernel.chmod(0o755)

    with start_demo(short_dir, "--kernel", str(kernel)) as demo:
        output, _ = demo.communicate(timeout=scaled(60))

    assert demo.returncode == 1
    assert "FAILED" in output
    assert "Kernel panic - not syncing: no reason" in output
    assert list(short_dir.iterdir()) == [kernel]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_demo_leaves_nothing(short_dir: Path, number: signal.Signals) -> None:
    with start_demo(short_dir) as demo:
        assert demo.stdout is not None
        while "bring their NICs up" not in demo.stdout.readline():
            assert demo.poll() is None
        demo.send_signal(number)
        demo.communicate(timeout=scaled(60))

    assert demo.returncode == 128 + number
    # The test's frame looks for processes that were left; files are looked for here.
    wait_until(lambda: list(short_dir.iterdir()) == [], 5, "the demo's folder is gone")
