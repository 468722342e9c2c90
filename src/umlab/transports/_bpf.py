"""Classic BPF programs, by which the kernel keeps frames from a socket or a tap device.

A program is a sequence of instructions.  One looks at what the kernel hands over, from the first byte of
the frame on (of the UDP header on a UDP socket), and returns how many bytes of it come through: none is a
drop, and so is an offset behind the end.

Source: Linux Documentation/networking/filter.rst, include/uapi/linux/filter.h, include/uapi/linux/if_tun.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

# Codes: load a word, two bytes or one, big-endian, from offset k; is what was loaded k; return k.
LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30
JUMP_IF_EQUAL = 0x15
RETURN = 0x06
#: The offset of no byte: what kind of frame the kernel takes it for, 0 for one that this host sends.
PACKET_TYPE = 0xFFFF_F004
#: What a program returns for a frame that comes through whole.
WHOLE = 0xFFFF_FFFF

_SO_ATTACH_FILTER = 26
#: struct sock_filter, and struct sock_fprog: how many of them, and where.
_INSTRUCTION, _PROGRAM = struct.Struct("=HBBI"), struct.Struct("@HP")
#: _IOW('T', 213, struct sock_fprog)
_TUNATTACHFILTER = 1 << 30 | _PROGRAM.size << 16 | ord("T") << 8 | 213


class Instruction(NamedTuple):
    """One instruction; a jump goes over so many of those that follow.

    Attributes:
        code: What it does.
        k: Its operand.
        if_true: How many ``JUMP_IF_EQUAL`` goes over where the two are equal.
        if_false: How many where they are not.
    """

    code: int
    k: int
    if_true: int = 0
    if_false: int = 0


def attach_filter(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Let a program decide what the socket receives from now on; what waits there already stays.

    Raises:
        OSError: The kernel does not take it.
    """
    instructions = _packed(program)
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _descriptor(instructions))


def attach_tap_filter(fd: int, program: Sequence[Instruction]) -> None:
    """Let a program decide what the host sends into an open tap device from now on.

    Raises:
        OSError: The kernel does not take it, or the descriptor is none of a tap device.
    """
    instructions = _packed(program)
    fcntl.ioctl(fd, _TUNATTACHFILTER, _descriptor(instructions))


def _packed(program: Sequence[Instruction]) -> ctypes.Array[ctypes.c_char]:
    data = b"".join(_INSTRUCTION.pack(code, yes, no, k) for code, k, yes, no in program)
    return ctypes.create_string_buffer(data, len(data))


def _descriptor(instructions: ctypes.Array[ctypes.c_char]) -> bytes:
    """Return a struct sock_fprog; the instructions must outlive its use."""
    return _PROGRAM.pack(len(instructions) // _INSTRUCTION.size, ctypes.addressof(instructions))
