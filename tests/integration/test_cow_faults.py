"""A merge on a disk that is full, as root of a namespace with a small file system of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.require import unavailable

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("words", ["left.cow new", "left.cow --in-place"])
def test_full_disk_in_the_middle_leaves_everything(words: str) -> None:
    namespace = ("unshare", "--user", "--map-root-user", "--mount")
    if subprocess.run([*namespace, "true"], check=False).returncode != 0:
        unavailable("user namespaces are off: sysctl -w user.max_user_namespaces=1000")
    script = """
        mount -t tmpfs -o size=8m none /mnt && cd /mnt || exit 9
        head -c 2000000 /dev/urandom >image && head -c 5000000 /dev/urandom >other
        "$0" -c "$1" cow create left.cow image || exit 9
        sha256sum image left.cow >/dev/shm/$$ && ls -a >>/dev/shm/$$
        "$0" -c "$1" cow merge $2
        status=$?
        (sha256sum image left.cow; ls -a) | cmp - /dev/shm/$$ || status=9
        rm /dev/shm/$$
        # With room it is done.
        rm other
        "$0" -c "$1" cow merge $2 || status=9
        exit $status
    """
    program = "from umlab.cli.main import main; main()"
    done = subprocess.run(
        [*namespace, "sh", "-c", script, sys.executable, program, words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 1, done
    assert done.stderr.startswith("umlab: cannot make ")
    assert done.stderr.endswith(": No space left on device; nothing is changed\n")
