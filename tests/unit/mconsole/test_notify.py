"""The socket on which guests report."""

from __future__ import annotations

import select
import socket
import stat
from pathlib import Path

import pytest

from umlab.errors import RemoteProtocolError, TransportError
from umlab.mconsole.notify import NotifySocket
from umlab.wire.mconsole import USER, Notification, serialize_notification


def send(path: Path, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as guest:
        guest.sendto(data, str(path))


def test_notifications_are_read_in_order_without_waiting(short_dir: Path) -> None:
    path = short_dir / "notify"
    with NotifySocket(str(path)) as receiver:
        assert receiver.receive() is None
        first, second = Notification(USER, b"one"), Notification(USER, b"two")
        send(path, serialize_notification(first))
        send(path, serialize_notification(second))
        assert select.select([receiver], [], [], 5)[0] == [receiver]
        assert [receiver.receive(), receiver.receive(), receiver.receive()] == [first, second, None]
    assert not path.exists()
    receiver.close()


def test_nonsense_is_reported_and_taken_off(short_dir: Path) -> None:
    path = short_dir / "notify"
    with NotifySocket(str(path)) as receiver:
        send(path, b"nonsense")
        with pytest.raises(RemoteProtocolError):
            receiver.receive()
        assert receiver.receive() is None


def test_only_the_owner_may_write(short_dir: Path) -> None:
    path = short_dir / "notify"
    with NotifySocket(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_existing_path_is_left_alone(short_dir: Path) -> None:
    path = short_dir / "notify"
    path.write_text("mine")
    with pytest.raises(TransportError, match=f"no notifications on {path}: Address already in use"):
        NotifySocket(str(path))
    assert path.read_text() == "mine"


def test_path_removed_by_someone_else_is_no_error(short_dir: Path) -> None:
    path = short_dir / "notify"
    with NotifySocket(str(path)):
        path.unlink()
