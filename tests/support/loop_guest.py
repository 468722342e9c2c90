"""A guest of the daemon protocol that lives in the same event loop as the switch under test."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path
from typing import Self

from support.deadline import scaled
from umlab.wire.daemon import AttachRequest, parse_attach_reply, serialize_attach_request
from umlab.wire.sockaddr import pad_path

#: Bytes of a request, v3 without its padding.
OF_VERSION = {0: 120, 1: 124, 3: 122}


class LoopGuest:
    """A control connection and a data socket.

    Args:
        control: The switch's control socket.
        name: Its data socket's name; an abstract one of 108 bytes unless given.
    """

    def __init__(self, control: Path, name: bytes | None = None) -> None:
        self.name = name or b"\0\0\0\0" + os.urandom(104)
        self.data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.data.bind(self.name)
        self.data.settimeout(scaled(10))
        self.stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stream.connect(os.fspath(control))
        self.stream.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.data.close()

    def request(self, version: int, *, dump: bool = False) -> bytes:
        """Return its request, v3 without the padding."""
        whole = AttachRequest(version, pad_path(self.name), None if version == 3 else bytes(6), dump)
        return serialize_attach_request(whole)[: OF_VERSION[version]]

    async def say(self, data: bytes) -> None:
        """Send bytes and wait until the listener has read them."""
        await asyncio.get_running_loop().sock_sendall(self.stream, data)
        async with asyncio.timeout(scaled(10)):
            while unread(self.stream):  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def read(self) -> bytes:
        """Return what comes; nothing means that the listener has closed the connection."""
        async with asyncio.timeout(scaled(10)):
            try:
                return await asyncio.get_running_loop().sock_recv(self.stream, 4096)
            except ConnectionResetError:
                return b""

    async def attach(self, version: int = 3) -> bytes:
        """Send a request of version 1 or 3 and return the name in the reply."""
        await self.say(self.request(version))
        return parse_attach_reply(await self.read())


def unread(sock: socket.socket) -> int:
    """Return how much memory the bytes that we sent and nobody has read take up."""
    return int(struct.unpack("=i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])
