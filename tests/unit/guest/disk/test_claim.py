"""Claims on disks: who keeps out whom."""

from __future__ import annotations

import fcntl
import struct
from io import FileIO
from pathlib import Path
from typing import IO, Any

import pytest

from umlab.errors import LabError
from umlab.guest.disk.claim import claimed
from umlab.guest.disk.file_lock import lock_file


@pytest.fixture
def disk(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 512)
    return str(path)


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_claim_keeps_out_others_for_its_block(disk: str, first: bool, second: bool) -> None:
    refused = pytest.raises(LabError, match="disk is in use by another run; stop that first")
    with claimed(disk, exclusive=first), refused, claimed(disk, exclusive=second):
        pass
    with claimed(disk, exclusive=second):
        pass


def test_disk_can_be_under_several_cow_files(disk: str) -> None:
    with claimed(disk, exclusive=False), claimed(disk, exclusive=False):
        pass


@pytest.mark.parametrize("exclusive", [True, False])
def test_claim_leaves_the_kernel_its_lock(disk: str, exclusive: bool) -> None:
    with claimed(disk, exclusive=exclusive), open(disk, "r+b") as kernel:
        lock_file(kernel.fileno(), disk, exclusive=exclusive)


def test_claim_is_given_up_where_it_would_be_the_kernels_lock(
    disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS."""

    def flock(file: IO[Any], operation: int) -> None:
        kind = {fcntl.LOCK_UN: fcntl.F_UNLCK, fcntl.LOCK_SH | fcntl.LOCK_NB: fcntl.F_RDLCK}.get(
            operation, fcntl.F_WRLCK
        )
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi0q", kind, 0, 0, 0, 0))

    monkeypatch.setattr("umlab.guest.disk.claim.open", lambda path, _mode: FileIO(path, "r+"), raising=False)
    monkeypatch.setattr("umlab.guest.disk.claim.fcntl.flock", flock)
    with claimed(disk, exclusive=True), open(disk, "r+b") as kernel:
        lock_file(kernel.fileno(), disk, exclusive=True)
