"""iperf3 for a guest: the host's program and its libraries in one folder, which a guest mounts and copies.

The tiny root has busybox alone.  A guest reads the folder through hostfs, once, into its own memory, so
that nothing of the host is in the way while it measures.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

#: A line of ldd: ``NAME => PATH (ADDRESS)``, or ``PATH (ADDRESS)`` for the loader.
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
#: Where the guest has it all.
_PLACE = "/tmp/iperf"

#: How a guest runs it, and what such a process is called there.
IPERF3 = f"{_PLACE}/loader --library-path {_PLACE} {_PLACE}/iperf3"


def collect(folder: Path) -> None:
    """Copy the host's iperf3, its libraries and their loader into a folder.

    Raises:
        SystemExit: There is no iperf3; names the package.
    """
    program = shutil.which("iperf3")
    if program is None:
        raise SystemExit("the benchmark needs iperf3; install the package iperf3")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    shutil.copy(program, folder / "iperf3")
    for path in map(Path, _LIBRARY.findall(listed)):
        shutil.copy(path, folder / ("loader" if path.name.startswith("ld-linux") else path.name))


def install_command(folder: Path) -> str:
    """Return the shell script with which a guest takes the folder over."""
    return f"mkdir -p {_PLACE} && mount -t hostfs -o {folder} none /mnt && cp /mnt/* {_PLACE}/ && umount /mnt"
