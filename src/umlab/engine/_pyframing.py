"""How the Python engine reads and writes frames, one class for each way in which they lie in a descriptor.

``read(size)`` returns the next message, for a frame of ``size`` bytes at most, ``None`` when what came is
not a whole one yet, and nothing at the end of the file.  ``frame_of(message, size)`` returns the frame in it,
``None`` if it came without the header that belongs in front of it.  ``write(frame)`` takes one frame whole.
``read`` and ``write`` raise OSError, and never wait.  ``turns`` yields for each frame that may be read before
other descriptors have their turn.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from umlab.switch.model import MAX_STREAM_LENGTH, Encapsulation, Framing, Link

#: Frames that are read from, or written to, one descriptor before the others have their turn.
BURST = 64
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
#: Bytes that are read from a stream at once.
STREAM_READ_SIZE = 65_536
_LENGTH = struct.Struct("!I")
#: Bytes of what a raw socket puts in front: an IPv4 header has 60 at most.
_MAX_IP_HEADER = 60
# PACKET_AUXDATA and struct tpacket_auxdata (Linux include/uapi/linux/if_packet.h): status, len, snaplen,
# mac, net, vlan_tci, vlan_tpid.
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_AUXDATA = struct.Struct("=IIIHHHH")
_VLAN_VALID, _TPID_VALID = 1 << 4, 1 << 6
_CTAG = 0x8100


class Wire(Protocol):
    """See the module."""

    def turns(self) -> Iterable[object]:
        """Yield for each frame that may be read now."""

    def read(self, size: int) -> bytes | None:
        """Return the next message."""

    def frame_of(self, message: bytes, size: int) -> bytes | None:
        """Return the frame in a message."""

    def write(self, frame: bytes) -> object:
        """Take one frame."""


def wire_of(link: Link, sock: socket.socket | None) -> Wire:
    """Return what reads and writes a link; the socket is that of its descriptor, ``None`` for a device."""
    if sock is None:
        return DeviceWire(link.fd)
    if link.framing is Framing.STREAM:
        return StreamWire(sock)
    if link.framing is Framing.PACKET:
        return PacketWire(sock)
    return MessageWire(sock) if link.encapsulation is None else HeaderWire(sock, link.encapsulation)


class _Bare:
    """A message is a frame."""

    def frame_of(self, message: bytes, _: int) -> bytes | None:
        """Return the frame in a message."""
        return message


class _Bursts(_Bare):
    """Reads so many frames at most, and leaves the others to epoll."""

    def turns(self) -> Iterable[object]:
        """Yield for each frame that may be read now."""
        return range(BURST)


class DeviceWire(_Bursts):
    """A character device."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int) -> bytes | None:
        """Return the next message."""
        return os.read(self._fd, size)

    def write(self, frame: bytes) -> object:
        """Take one frame."""
        return os.write(self._fd, frame)


class MessageWire(_Bursts):
    """A socket that keeps messages apart."""

    def __init__(self, sock: socket.socket) -> None:
        self._recv = sock.recv
        self._send = sock.send

    def read(self, size: int) -> bytes | None:
        """Return the next message."""
        return self._recv(size, socket.MSG_DONTWAIT)

    def write(self, frame: bytes) -> object:
        """Take one frame."""
        return self._send(frame, _FLAGS)


class HeaderWire(MessageWire):
    """A socket on which a message is a header and a frame."""

    def __init__(self, sock: socket.socket, encapsulation: Encapsulation) -> None:
        super().__init__(sock)
        self._given = encapsulation
        self._counter = encapsulation.tx_counter
        self._most_in_front = len(encapsulation.rx_header) + encapsulation.rx_skip
        if encapsulation.ip_header:
            self._most_in_front += _MAX_IP_HEADER

    def read(self, size: int) -> bytes | None:
        """Return the next message."""
        return self._recv(size + self._most_in_front, socket.MSG_DONTWAIT)

    def frame_of(self, message: bytes, size: int) -> bytes | None:
        """Return the frame in a message."""
        given = self._given
        begin = (message[0] & 0x0F) * 4 if given.ip_header and message else 0
        after = begin + len(given.rx_header)
        if len(message) < after + given.rx_skip or message[begin:after] != given.rx_header:
            return None
        return message[after + given.rx_skip :][:size]

    def write(self, frame: bytes) -> object:
        """Take one frame."""
        header = self._given.tx_header
        if self._counter is None:
            return self._send(header + frame, _FLAGS)
        sent = self._send(header + self._counter.to_bytes(4, "big") + frame, _FLAGS)
        self._counter = (self._counter + 1) & 0xFFFF_FFFF
        return sent


class PacketWire(MessageWire):
    """An AF_PACKET socket."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._recvmsg = sock.recvmsg

    def read(self, size: int) -> bytes | None:
        """Return the next message, with the tag that the kernel has taken out of it."""
        data, ancillary, _, _ = self._recvmsg(size, socket.CMSG_SPACE(_AUXDATA.size), socket.MSG_DONTWAIT)
        for level, kind, value in ancillary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= 12:
                status, _, _, _, _, tci, tpid = _AUXDATA.unpack(value[: _AUXDATA.size])
                if status & _VLAN_VALID:
                    tag = struct.pack("!HH", tpid if status & _TPID_VALID else _CTAG, tci)
                    return data[:12] + tag + data[12:]
        return data


class StreamWire(_Bare):
    """A stream in which each frame comes behind its length."""

    def __init__(self, sock: socket.socket) -> None:
        self._recv = sock.recv
        self._send = sock.send
        self._received = bytearray()
        self._frames: deque[bytes] = deque()
        #: What a read ends with once the frames before it are taken.
        self._end: int | None = None
        #: Bytes of the frame that is being written, its length included, which are out already.
        self._sent = 0

    def turns(self) -> Iterable[object]:
        """Yield for each frame that may be read now: those as well that epoll knows nothing of any more."""
        yield None
        while self._frames or self._end is not None:
            yield None

    def read(self, size: int) -> bytes | None:
        """Return the next message; EMSGSIZE for a length that no frame has, EPROTO for an end within one."""
        if not self._frames and self._end is None:
            self._receive()
        if self._frames:
            return self._frames.popleft()[:size]
        if self._end is None:
            return None
        if self._end:
            raise OSError(self._end, os.strerror(self._end))
        return b""

    def _receive(self) -> None:
        data = self._recv(STREAM_READ_SIZE, socket.MSG_DONTWAIT)
        if not data:
            self._end = errno.EPROTO if self._received else 0
            return
        received = self._received
        received += data
        begin = 0
        while len(received) - begin >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received, begin)
            if length > MAX_STREAM_LENGTH:
                self._end = errno.EMSGSIZE
                break
            end = begin + _LENGTH.size + length
            if end > len(received):
                break
            if length:
                self._frames.append(bytes(received[begin + _LENGTH.size : end]))
            begin = end
        del received[:begin]

    def write(self, frame: bytes) -> object:
        """Take one frame; one that raises BlockingIOError must be the next that is written."""
        data = _LENGTH.pack(len(frame)) + frame
        try:
            self._sent += self._send(memoryview(data)[self._sent :], _FLAGS)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                self._sent = 0
                raise
        if self._sent < len(data):
            raise BlockingIOError(errno.EAGAIN, "half a frame is out")
        self._sent = 0
        return len(frame)
