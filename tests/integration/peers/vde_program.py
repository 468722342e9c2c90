"""VDE's own programs for the length of a block, and a switch of ours for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from support.deadline import scaled, wait_until_async
from support.require import require_program
from umlab.daemon.switch import PortInfo, SwitchService
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import PRIVATE, Access, Listener
from umlab.transports.vde import VdeListener

EXPERIMENTAL = b"\x88\xb5"


@asynccontextmanager
async def vde_directory(
    directory: Path, access: Access = PRIVATE, more: Sequence[Listener] = ()
) -> AsyncIterator[SwitchService]:
    """Run a switch of ours with a directory for VDE clients; it must be gone afterwards."""
    switch = SwitchService(directory.name, SwitchConfig(), [VdeListener(directory, access), *more])
    await switch.start()
    try:
        yield switch
    finally:
        await switch.stop()
    assert not directory.exists()


async def wait_ports(switch: SwitchService, count: int) -> list[PortInfo]:
    """Wait until a switch has so many ports, and return them."""
    try:
        await wait_until_async(lambda: len(switch.ports()) == count, 20, f"{count} ports")
    except TimeoutError as error:
        raise TimeoutError(f"{error}; there are {switch.ports()}") from None
    return switch.ports()


class VdePlug:
    """``vde_plug`` between a switch and its standard streams: each frame behind its length, 2 bytes.

    Attributes:
        process: It.
        mac: The address that `say` sends from.
    """

    _serial = 0

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        VdePlug._serial += 1
        self.process = process
        self.mac = b"\x02\xde" + VdePlug._serial.to_bytes(4, "big")
        assert process.stdin is not None
        assert process.stdout is not None
        self._writer, self._reader = process.stdin, process.stdout

    async def send(self, frame: bytes) -> None:
        """Send one frame."""
        self._writer.write(len(frame).to_bytes(2, "big") + frame)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """Return the next frame."""
        async with asyncio.timeout(scaled(20)):
            size = int.from_bytes(await self._reader.readexactly(2), "big")
            return await self._reader.readexactly(size)

    async def receive_from(self, source: bytes, kind: bytes = EXPERIMENTAL) -> bytes:
        """Return the next frame from an address and of a type; what else comes is passed over."""
        async with asyncio.timeout(scaled(20)):
            while True:
                frame = await self.receive()
                if frame[6:14] == source + kind:
                    return frame

    async def drained(self) -> None:
        """Read what is left until its end."""
        while await self._reader.read(65_536):
            pass

    async def hear(self, frame: bytes) -> None:
        """Wait for a frame; what comes before it is passed over."""
        async with asyncio.timeout(scaled(20)):
            while await self.receive() != frame:
                pass

    def frame(self, destination: bytes, number: int, size: int = 60) -> bytes:
        """Return a numbered frame from this plug."""
        return (destination + self.mac + EXPERIMENTAL + number.to_bytes(4, "big")).ljust(size, b"\xa5")


@asynccontextmanager
async def vde_plug(url: object, *options: str, prefix: Sequence[str] = ()) -> AsyncIterator[VdePlug]:
    """Run ``vde_plug`` for a switch, such as a directory.

    Args:
        url: The switch.
        options: Of ``vde_plug``.
        prefix: Words in front of its name, such as ``setpriv ...``.
    """
    process = await asyncio.create_subprocess_exec(
        *prefix,
        str(require_program("vde_plug")),
        *options,
        str(url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    plug = VdePlug(process)
    try:
        yield plug
    finally:
        plug._writer.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        async with asyncio.timeout(scaled(10)):
            await asyncio.gather(process.wait(), plug.drained())


@contextmanager
def running(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and what it starts, its standard input open and silent, and end its process group."""
    # Not in a session of its own: dpipe fails where it leads one.
    process = subprocess.Popen(
        list(map(str, words)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=scaled(10))


async def meet(*plugs: VdePlug) -> None:
    """Let plugs on one network hear each other, both ways, each frame sent until it has arrived."""
    for number, sender in enumerate(plugs):
        for receiver in plugs[:number] + plugs[number + 1 :]:
            await _say_until_heard(sender, receiver)


async def _say_until_heard(sender: VdePlug, receiver: VdePlug) -> None:
    frame = sender.frame(receiver.mac, 0)
    heard = asyncio.ensure_future(receiver.hear(frame))
    try:
        # Nobody says when a wire between two switches has been laid.
        while not heard.done():
            await sender.send(frame)
            await asyncio.wait([heard], timeout=0.1)
        await heard
    finally:
        heard.cancel()


async def exchange(left: VdePlug, right: VdePlug, count: int, size: int = 1400, window: int = 64) -> None:
    """Let two plugs send each other so many frames at the same time: all arrive, in order and unchanged.

    Args:
        window: Frames that are on their way at a time, each way.
    """
    await asyncio.gather(
        _flow(left, right, range(1, count + 1), size, window),
        _flow(right, left, range(1, count + 1), size, window),
    )


async def _flow(sender: VdePlug, receiver: VdePlug, numbers: range, size: int, window: int) -> None:
    credit = asyncio.Semaphore(window)

    async def send() -> None:
        for number in numbers:
            await credit.acquire()
            await sender.send(sender.frame(receiver.mac, number, size))

    async def receive() -> None:
        for number in numbers:
            while (frame := await receiver.receive_from(sender.mac))[14:18] == bytes(4):
                # `meet` said it more than once.
                pass
            assert frame == sender.frame(receiver.mac, number, size)
            credit.release()

    await asyncio.gather(send(), receive())
