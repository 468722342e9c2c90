"""Filters of captures: an expression of libpcap, or a program as ``tcpdump -ddd`` prints it.

libpcap is loaded when the first expression is compiled; nothing else of umlab needs it.

Source: pcap_compile(3PCAP), pcap-filter(7).
"""

from __future__ import annotations

import ctypes
import functools
import re
import threading

from umlab.engine.contract import MAX_SNAP_LENGTH
from umlab.errors import CaptureError
from umlab.switch.bpf import Instruction, Program, parse_ddd
from umlab.wire.pcapng import LINKTYPE_ETHERNET

#: Names of the library, Debian's first, and the package that has it there.
_LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1")
PACKAGE = "libpcap0.8"
#: Characters of an expression: its optimiser takes seconds for some that are longer.
MAX_EXPRESSION = 2048
_OPTIMISED = 1
_NETMASK_UNKNOWN = 0xFFFF_FFFF
#: A program begins with a number of instructions, which is no expression.
_PROGRAM = re.compile(r"[\d\s]+")
#: Characters of an expression that an error shows.
_SHOWN = 200

# Its parser was not safe for threads before 1.8, and name lookups are not meant to be many at once.
_lock = threading.Lock()


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


def compile_filter(text: str) -> Program | None:
    """Return the program of a filter, ``None`` for an empty one, which every frame passes.

    It may take as long as a name in the expression takes to be looked up.

    Raises:
        CaptureError: It is no filter, or libpcap is missing.
    """
    text = text.strip()
    if not text:
        return None
    if _PROGRAM.fullmatch(text):
        try:
            return parse_ddd(text)
        except ValueError as error:
            raise CaptureError(f"the filter is no program of tcpdump -ddd: {error}") from None
    if len(text) > MAX_EXPRESSION:
        raise CaptureError(f"the filter has {len(text)} characters, at most {MAX_EXPRESSION} are possible")
    if "\0" in text:
        raise CaptureError("the filter has a NUL character")
    return _compile(text)


def why_no_library() -> str:
    """Return why libpcap cannot be had, in one line; empty where it can."""
    try:
        _library()
    except OSError as error:
        return str(error)
    return ""


def _compile(text: str) -> Program:
    try:
        library = _library()
    except OSError as error:
        raise CaptureError(
            f"a filter needs libpcap, which is not here ({error}); apt-get install {PACKAGE}, or give it as "
            "tcpdump -ddd prints it"
        ) from None
    program = _Program()
    with _lock:
        handle = library.pcap_open_dead(LINKTYPE_ETHERNET, MAX_SNAP_LENGTH)
        if not handle:
            raise MemoryError("no memory for libpcap")
        try:
            expression = text.encode(errors="replace")
            if library.pcap_compile(handle, ctypes.byref(program), expression, _OPTIMISED, _NETMASK_UNKNOWN):
                reason = library.pcap_geterr(handle).decode(errors="replace")
                raise CaptureError(f"the filter {text[:_SHOWN]!r} does not compile: {reason}")
            instructions = [
                Instruction(each.code, each.jt, each.jf, each.k)
                for each in program.instructions[: program.length]
            ]
            library.pcap_freecode(ctypes.byref(program))
        finally:
            library.pcap_close(handle)
    try:
        return Program(tuple(instructions))
    except ValueError as error:
        raise CaptureError(f"the filter {text[:_SHOWN]!r} cannot be run: {error}") from None


@functools.cache
def _library() -> ctypes.CDLL:
    """Return libpcap.  Raises OSError where there is none."""
    problem = OSError()
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            problem = error
            continue
        handle, program = ctypes.c_void_p, ctypes.POINTER(_Program)
        library.pcap_open_dead.restype = handle
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_compile.argtypes = (handle, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32)
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_geterr.argtypes = (handle,)
        library.pcap_freecode.restype = None
        library.pcap_freecode.argtypes = (program,)
        library.pcap_close.restype = None
        library.pcap_close.argtypes = (handle,)
        return library
    raise problem
