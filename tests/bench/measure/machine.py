"""What figures were measured on: the machine, the peers and our own version."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PEERS = ("uml-utilities", "vde-switch", "vde2", "user-mode-linux", "iperf3")


def facts() -> dict[str, str]:
    """Describe the machine as it is now, by what the table calls each fact."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "umlab": _output("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "no repository",
        "processor": model[1] if model else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
        "net.unix.max_dgram_qlen": Path("/proc/sys/net/unix/max_dgram_qlen").read_text().strip(),
        "Python": platform.python_version(),
        **{package: version for package in PEERS if (version := _package_version(package))},
    }


def _package_version(package: str) -> str:
    return _output("dpkg-query", "-W", "-f=${Version}", package)


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
