"""One daemon and one keeper for each lab: locks that end with their process, and a way to the keeper."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from umlab._descriptor_limit import raise_descriptor_limit
from umlab.daemon.place import DAEMON_LOCK, GUESTS, KEEPER_LOCK, KEEPER_SOCKET
from umlab.errors import LabError, LabInUse
from umlab.keeper.link import KeeperLink
from umlab.keeper.start import start_keeper
from umlab.transports.socketfile import SocketFile

#: Seconds to wait for a lock that somebody holds only to look, or while ending.
_LOCK_PATIENCE = 1.0
#: Seconds for a keeper to be gone that is ending, with its guests.
_KEEPER_PATIENCE = 20.0
_POLL_TIME = 0.02


class Claim:
    """The right to be a lab's daemon, from the making of this object until :meth:`close`.

    Args:
        lab: The lab.
        runtime: Its directory for sockets.

    Raises:
        LabInUse: Another daemon has it.
        LabError: Its lock cannot be made; says why.
    """

    def __init__(self, lab: str, runtime: Path) -> None:
        self._lab = lab
        self._runtime = runtime
        try:
            self._fd = _take(lab, runtime / DAEMON_LOCK)
        except OSError as error:
            raise LabError(f"no lock for {lab} in {runtime}: {error.strerror}") from None

    async def keeper(self, log: Path) -> KeeperLink:
        """Connect to the lab's keeper, started if there is none.

        Args:
            log: The file to which one that is started adds its errors.

        Raises:
            LabError: There is none to be had.
        """
        # It gives us as much as it holds, and has as many descriptors as we may have.
        raise_descriptor_limit()
        try:
            return await self._connect(log)
        except OSError as error:
            raise LabError(f"there is no keeper to be had for {self._lab}: {error}") from None

    async def _connect(self, log: Path) -> KeeperLink:
        path = str(self._runtime / KEEPER_SOCKET)
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            return await _patiently_connect(path)
        lock = _open(self._runtime / KEEPER_LOCK)
        try:
            # One that is ending serves nobody any more.
            if not await asyncio.to_thread(_lock, lock, _KEEPER_PATIENCE):
                raise LabError(f"the keeper of {self._lab} serves nobody and does not end")
            file = SocketFile(path, socket.SOCK_SEQPACKET)
            # The file is the keeper's from now on.
            with file.socket as listener, log.open("ab") as errors:
                start_keeper(listener, path, lock=lock, log=errors.fileno())
        finally:
            os.close(lock)
        return KeeperLink.connect(path)

    def close(self) -> None:
        """Let another daemon have the lab."""
        os.close(self._fd)

    def remove(self) -> None:
        """Remove the lab's directory, where nothing else is left in it, and let go.

        Where a keeper lives on, all stays: the next daemon has to find it.
        """
        with contextlib.suppress(OSError):
            lock = _open(self._runtime / KEEPER_LOCK)
            try:
                # Until its process is gone it may remove its socket's file, which could be the next one's.
                if _lock(lock, _LOCK_PATIENCE):
                    self._remove()
            finally:
                os.close(lock)
        self.close()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._runtime / KEEPER_SOCKET)
        with contextlib.suppress(OSError):
            os.rmdir(self._runtime / GUESTS)
        if (self._runtime / GUESTS).is_dir():
            # Of guests that died with an earlier keeper: the locks show `umlab gc` that it is a lab's.
            return
        for name in (KEEPER_LOCK, DAEMON_LOCK):
            with contextlib.suppress(OSError):
                os.unlink(self._runtime / name)
        with contextlib.suppress(OSError):
            os.rmdir(self._runtime)


async def _patiently_connect(path: str) -> KeeperLink:
    """Connect to a keeper, which may still have to see that the daemon before us is gone."""
    end = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            return KeeperLink.connect(path)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
        await asyncio.sleep(_POLL_TIME)


def _take(lab: str, path: Path) -> int:
    """Return a descriptor that holds a lab's lock; LabInUse where another has it."""
    while True:
        fd = _open(path)
        if not _lock(fd, _LOCK_PATIENCE):
            text = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise LabInUse(lab, int(text) if text.isdigit() else 0)
        # Whoever had it before may have removed the file: then the next daemon would find another one.
        if _is_at(fd, path):
            with contextlib.suppress(OSError):
                # For people and for who is refused; a full disk is no reason to stop.
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            return fd
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    """Open a lock's file, made where it is missing, and its directory with it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            # Somebody who cleans up may remove it again before it has something in it.
            path.parent.mkdir(mode=0o700, exist_ok=True)


def _lock(fd: int, patience: float) -> bool:
    """Lock a file, waiting a while for others, and say whether that could be done."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_TIME)
