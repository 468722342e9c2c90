"""The umid of a guest's process, lab's or not: what its command line says, or its pid file.

Source: Linux arch/um/os-Linux/umid.c.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import re
from collections.abc import Iterator

#: What is shown of a name that another program has chosen.
_UMID = re.compile(rb"[!-.0-~]{1,64}")
#: Bytes of a command line that are read.
_MAX_COMMAND = 16_384
#: Run directories that are looked at.
_MAX_DIRECTORIES = 256


def umid_of(pid: int, uid: int | None) -> str | None:
    """Return the umid of a UML kernel's main process, as far as we may look into it.

    Args:
        pid: The process.
        uid: Whose run directories are looked at where the command line says nothing; nobody's for ``None``.

    Returns:
        ``None`` for other programs, and for one that says nothing that could be shown.
    """
    words = _read(f"/proc/{pid}/cmdline", _MAX_COMMAND).split(b"\0")
    settings = dict(word.split(b"=", 1) for word in reversed(words) if b"=" in word)
    umid = settings.get(b"umid")
    if umid is None and uid is not None:
        umid = next(_umids_with(pid, _run_directories(uid, settings.get(b"uml_dir"))), b"")
    return umid.decode() if umid and _UMID.fullmatch(umid) else None


def _run_directories(uid: int, told: bytes | None) -> Iterator[bytes]:
    if told is not None:
        yield told
        return
    with contextlib.suppress(KeyError):
        yield os.fsencode(os.path.join(pwd.getpwuid(uid).pw_dir, ".uml"))
    yield b"/tmp/uml"


def _umids_with(pid: int, directories: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the names under which a process is written down."""
    for directory in directories:
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            for entry in itertools.islice(entries, _MAX_DIRECTORIES):
                if _read(os.path.join(entry.path, b"pid"), 16).strip() == str(pid).encode():
                    yield entry.name


def _read(path: str | bytes, size: int) -> bytes:
    """Return the beginning of a file, nothing where there is none; no FIFO holds us up."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY)
        try:
            return os.read(fd, size)
        finally:
            os.close(fd)
    return b""
