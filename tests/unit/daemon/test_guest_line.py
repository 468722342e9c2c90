"""Terminals that a guest's kernel has opened itself, and those that it only says are its own."""

from __future__ import annotations

import os
import subprocess
import termios

import pytest

from umlab.daemon.guest_line import device_of, open_line
from umlab.errors import StateError


def test_lines_have_names_in_the_guest() -> None:
    assert [device_of(line) for line in ("con1", "con15", "ssl0", "ssl07")] == [
        "tty1",
        "tty15",
        "ttyS0",
        "ttyS7",
    ]
    assert [device_of(line) for line in ("", "con", "con123", "eth0", "con1\n", "../con1")] == [None] * 6


def test_terminal_of_the_guest_is_opened_raw() -> None:
    master, slave = os.openpty()
    try:
        fd = open_line(os.getpid(), f"pts:{os.ttyname(slave)}")
        assert not termios.tcgetattr(fd)[3] & termios.ECHO
        os.write(master, b"hello")
        assert os.read(fd, 9) == b"hello"
        os.close(fd)
    finally:
        os.close(master)
        os.close(slave)


def test_terminal_of_somebody_else_is_not_believed() -> None:
    """The other side is this process's, which is not the guest."""
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        with subprocess.Popen(["cat"], stdin=slave, stdout=subprocess.DEVNULL) as guest:
            for setting in (
                f"pts:{name}",
                "pts:/dev/pts/../tty",
                "pts:/etc/passwd",
                "pts",
                "",
                f"pts:{name}\n",
            ):
                with pytest.raises(StateError, match="no terminal open"):
                    open_line(guest.pid, setting)
            guest.terminate()
        with pytest.raises(StateError):
            open_line(1 << 30, f"pts:{name}")
    finally:
        os.close(master)
        os.close(slave)
