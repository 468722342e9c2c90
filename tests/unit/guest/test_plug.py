"""What only the host can tell of a device: who listens, what is there, what may be written to."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.require import require_program
from umlab.errors import LabError
from umlab.guest.cmdline import DaemonNic
from umlab.guest.device import Console, Disk, LegacyNic, Memory, Setting
from umlab.guest.plug import check_plug
from umlab.guest.vector import VectorNic


def refusal(setting: Setting, *writable: Path) -> str:
    """Return why a device is refused for a guest that may write to these places, empty if it is not."""
    try:
        check_plug(setting, list(map(str, writable)))
    except LabError as error:
        return str(error)
    return ""


@pytest.fixture
def listener(short_dir: Path) -> Iterator[dict[str, Path]]:
    """Yield a socket of each type, and one that nobody serves any more."""
    kinds = {
        "stream": socket.SOCK_STREAM,
        "seqpacket": socket.SOCK_SEQPACKET,
        "datagram": socket.SOCK_DGRAM,
    }
    paths = {name: short_dir / name for name in (*kinds, "dead")}
    sockets = {}
    for name, path in paths.items():
        sockets[name] = socket.socket(socket.AF_UNIX, kinds.get(name, socket.SOCK_STREAM))
        sockets[name].bind(str(path))
        if name != "datagram":
            sockets[name].listen()
            sockets[name].setblocking(False)
    sockets["dead"].close()
    yield paths
    # Nobody who listens has been asked for a connection.
    for name in ("stream", "seqpacket"):
        with pytest.raises(BlockingIOError):
            sockets[name].accept()
    for each in sockets.values():
        each.close()


def bess(path: Path) -> VectorNic:
    return VectorNic("bess", (("dst", str(path)),))


def test_nic_needs_somebody_who_listens(listener: dict[str, Path], short_dir: Path) -> None:
    assert refusal(DaemonNic(str(listener["stream"]))) == ""
    assert refusal(bess(listener["seqpacket"])) == ""
    (short_dir / "file").touch()
    for path, reason in {
        short_dir / "none": "No such file",
        listener["dead"]: "Connection refused",
        short_dir / "file": "Connection refused",
    }.items():
        for nic in (DaemonNic(str(path)), bess(path)):
            assert f"nobody listens at {path}: {reason}" in refusal(nic)
    assert "of another kind" in refusal(DaemonNic(str(listener["datagram"])))
    assert "of another kind" in refusal(bess(listener["datagram"]))


def test_nic_needs_a_socket_of_its_own_type(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(str(short_dir / "x"))
        other.listen()
        assert "of another kind" in refusal(DaemonNic(str(short_dir / "x")))
        assert refusal(LegacyNic("vde", (str(short_dir),))).startswith("nobody listens at")


def test_nic_on_vde_needs_the_switchs_control_socket(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(short_dir / "ctl"))
        control.listen()
        assert refusal(LegacyNic("vde", (str(short_dir),))) == ""


def test_other_nics_and_memory_are_the_kernels_to_judge() -> None:
    for setting in (LegacyNic("mcast"), VectorNic("tap", ()), Memory(4096, "+"), Console("pts", "null")):
        assert refusal(setting) == ""


def test_descriptors_are_inherited() -> None:
    assert "has to be there when the guest starts" in refusal(VectorNic("fd", (("fd", "5"),)))
    assert "a running guest cannot be given one" in refusal(Console("null", "fd:5"))


def test_image_has_to_be_there_and_to_be_one(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    os.mkfifo(tmp_path / "fifo")
    assert refusal(Disk(str(image)), tmp_path) == ""
    assert "image /none: No such file" in refusal(Disk("/none"), tmp_path)
    assert "neither a plain file nor a block device" in refusal(Disk(str(tmp_path)), tmp_path)
    assert "neither a plain file nor a block device" in refusal(Disk(str(tmp_path / "fifo")), tmp_path)
    cow = str(tmp_path / "cow")
    assert "backing image /none: No such file" in refusal(Disk(cow, "/none"), tmp_path)


def test_guest_may_write_where_it_was_told(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    image = outside / "image"
    image.touch()
    link = inside / "link"
    link.symlink_to(image)
    for path in (image, link):
        assert "is not among the places that the guest was given" in refusal(Disk(str(path)), inside)
        assert refusal(Disk(str(path), read_only=True), inside) == ""
        assert refusal(Disk(str(path)), inside, image) == ""
    assert refusal(Disk(str(inside / "cow"), str(image)), inside) == ""
    assert "make a COW file there" in refusal(Disk(str(outside / "cow"), str(image)), inside)
    assert "there is no folder" in refusal(Disk(str(inside / "none/cow"), str(image)), inside)
    # A neighbour whose name only begins so.
    near = tmp_path / "inner"
    near.touch()
    assert "is not among the places" in refusal(Disk(str(near)), inside)
    check_plug(Disk(str(image)), None)


def test_cow_file_has_to_be_of_this_image(tmp_path: Path) -> None:
    image, cow, disk = (
        tmp_path / "image",
        tmp_path / "cow",
        Disk(str(tmp_path / "cow"), str(tmp_path / "image")),
    )
    image.write_bytes(bytes(1 << 20))
    cow.write_bytes(b"something else")
    assert "is there and is no COW file of use" in refusal(disk, tmp_path)
    cow.unlink()
    subprocess.run([require_program("uml_mkcow"), cow, image], check=True, capture_output=True)
    assert refusal(disk, tmp_path) == ""
    os.utime(image, (1, 1))
    assert "or this one was changed since" in refusal(disk, tmp_path)


def test_terminal_has_to_be_one(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"{file} is no terminal" in refusal(Console(f"tty:{file}"), tmp_path)
    master, slave = os.openpty()
    try:
        path = os.ttyname(slave)
        assert refusal(Console(f"tty:{path}"), Path("/dev/pts")) == ""
        assert "is not among the places" in refusal(Console(f"tty:{path}"), tmp_path)
    finally:
        os.close(master)
        os.close(slave)


def test_old_pseudo_terminals_have_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", lambda _: ["pts", "ptmx"])
    assert "write pts" in refusal(Console("pty"))
    monkeypatch.setattr(os, "listdir", lambda _: ["ptyp0"])
    assert refusal(Console("pty")) == ""
