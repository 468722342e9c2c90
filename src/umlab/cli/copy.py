"""Files into guests, and out of one: as tar streams through commands there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from umlab._readable import readable
from umlab.cli.copy_place import Place
from umlab.cli.copy_script import fetching, packing, storing, unpacking
from umlab.cli.guest_choice import Choice
from umlab.cli.pipe import PipeWriter
from umlab.cli.progress import ProgressLine
from umlab.client.exec import AsyncExec, ExecOrder
from umlab.errors import LabError, UmlabError
from umlab.guest.console import escape
from umlab.guest.inside.archive import HOLES, PARTS, ArchiveReader, measure, write_archive
from umlab.guest.inside.unpack import Unpacker

_READ_SIZE = 256 * 1024
#: Guests that files are copied to at a time.
_CONCURRENCY = 4
#: Seconds that a guest has to remove what it has of an interrupted copy.
_CLEAN_TIME = 3.0
#: Bytes of what a guest says about a copy.
_MAX_ERRORS = 16 * 1024

#: Paths of ours, each with the name that it gets.
Sources = Sequence[tuple[str, str]]


def named_sources(paths: Sequence[str]) -> Sources:
    """Return what is copied from here, each with its name.

    Raises:
        LabError: Something is not there, or two have one name.
    """
    sources: dict[str, str] = {}
    for path in paths:
        if not os.path.exists(path):
            raise LabError(f"{path}: no such file or folder")
        name = os.path.basename(os.path.abspath(path))
        if name in ("", HOLES, PARTS):
            raise LabError(f"{path}: write the name of a file or folder")
        if name in sources:
            raise LabError(f"{path}: {sources[name]} is called {name} as well")
        sources[name] = path
    return [(path, name) for name, path in sources.items()]


def target_path(source: Place, target: str) -> str:
    """Return where something of a guest's comes to be here.

    Raises:
        LabError: The folder is not there, or what is copied has no name.
    """
    if os.path.isdir(target):
        return os.path.join(target, source.name)
    if target.endswith("/"):
        raise LabError(f"{target}: no such folder")
    return target


@dataclass(slots=True)
class Copied:
    """What one copy has brought, from here to one guest or the other way.

    Attributes:
        choice: The guest.
        path: The path there.
        files: How many files, each once however many names it has.
        size: Bytes in them, holes among them.
        seconds: How long it took.
        problems: What went wrong, perhaps in the guest's words.
    """

    choice: Choice
    path: str
    files: int = 0
    size: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return it for programs."""
        record: dict[str, Any] = {"lab": self.choice.lab, "guest": self.choice.guest, "path": self.path}
        record |= {"files": self.files, "bytes": self.size, "seconds": round(self.seconds, 3)}
        return record | {"problems": self.problems}

    def count_file(self, size: int) -> None:
        """Take note of a file."""
        self.files += 1
        self.size += size


class Copy:
    """One run of the command.

    Args:
        say: Is told everything that went wrong.
        on_copied: Is told of each copy when it has ended, whether all went well or not.

    Attributes:
        failed: Whether anything did.
    """

    def __init__(self, say: Callable[[str], None], on_copied: Callable[[Copied], None]) -> None:
        self.failed = False
        self._say = say
        self._on_copied = on_copied

    async def put(self, sources: Sources | None, choices: Sequence[Choice], place: str) -> None:
        """Copy files and folders of ours into guests.

        Args:
            sources: Their paths and names; ``None`` for standard input.
            choices: The guests.
            place: The path there.
        """
        places = asyncio.Semaphore(_CONCURRENCY)
        total = measure([path for path, _ in sources or ()]) * len(choices)
        with ProgressLine("copying") as progress:
            done = 0

            def advance(size: int) -> None:
                nonlocal done
                done += size
                progress(done, total)

            async def put_in(choice: Choice) -> None:
                async with places:
                    with self._copied(choice, place) as copied:
                        await self._put_in(copied, sources, advance)

            await _all(put_in(choice) for choice in choices)

    async def get(self, choice: Choice, source: Place, target: str) -> None:
        """Copy a file or folder of a guest to a path here, or a file to standard output.

        Raises:
            UmlabError: It cannot be had.
            OSError: It cannot be written.
        """
        with self._copied(choice, source.path) as copied:
            if target == "-":
                await self._print(copied)
            else:
                await self._get(copied, target)

    @contextmanager
    def _copied(self, choice: Choice, path: str) -> Iterator[Copied]:
        copied, begun_at = Copied(choice, path), time.monotonic()
        yield copied
        copied.seconds = time.monotonic() - begun_at
        self._on_copied(copied)

    def _problem(self, copied: Copied, text: str) -> None:
        self.failed = True
        problem = escape(os.fsencode(text))
        copied.problems.append(problem)
        self._say(problem)

    async def _print(self, copied: Copied) -> None:
        pipe = PipeWriter(1, lambda: None)
        try:
            await self._converse(copied, fetching(copied.path), pipe.write)
        finally:
            pipe.close()

    async def _get(self, copied: Copied, target: str) -> None:
        reader = ArchiveReader()
        problem = partial(self._problem, copied)
        with Unpacker(target, problem) as unpacker, ProgressLine("copying") as progress:
            done = 0

            async def take(data: bytes) -> None:
                nonlocal done
                for event in reader.feed(data):
                    unpacker.take(event)
                done += len(data)
                progress(done, 0)

            if await self._converse(copied, packing(copied.path), take) and done:
                reader.finish()
                unpacker.finish()
                copied.files, copied.size = unpacker.files, unpacker.size

    async def _put_in(self, copied: Copied, sources: Sources | None, advance: Callable[[int], None]) -> None:
        if sources is None:
            script, pieces = storing(copied.path), None
        else:
            script = unpacking(copied.path, is_one=len(sources) == 1)
            pieces = write_archive(sources, partial(self._problem, copied), copied.count_file)

        async def feed(running: AsyncExec) -> None:
            if pieces is None:
                size = 0
                while data := await _read():
                    await running.write(data)
                    size += len(data)
                    advance(len(data))
                copied.count_file(size)
            else:
                for piece in pieces:
                    await running.write(piece)
                    advance(len(piece))
            await running.end_input()

        async def ignore(_: bytes) -> None:
            pass

        try:
            await self._converse(copied, script, ignore, feed)
        except UmlabError as error:
            self._problem(copied, f"{copied.choice.label}: {error}")

    async def _converse(
        self,
        copied: Copied,
        script: str,
        take: Callable[[bytes], Awaitable[None]],
        feed: Callable[[AsyncExec], Awaitable[None]] | None = None,
    ) -> bool:
        """Run a script, and say whether it ended well; what it complains about are problems."""
        choice = copied.choice
        order = ExecOrder(script=script, input="none" if feed is None else "pipe")
        async with await AsyncExec.open(choice.lab, choice.guest, order) as running:
            feeding = asyncio.ensure_future(feed(running)) if feed is not None else None
            errors = b""
            try:
                while (output := await running.read()) is not None:
                    if output.stream == "stdout":
                        await take(output.data)
                    else:
                        errors = (errors + output.data)[:_MAX_ERRORS]
                    if feeding is not None and feeding.done():
                        feeding.result()
            except asyncio.CancelledError:
                await self._clean(running)
                raise
            finally:
                if feeding is not None:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)
            for line in errors.decode("utf-8", "surrogateescape").splitlines():
                self._problem(copied, f"{choice.label}: {line}")
            if running.status and not errors:
                self._problem(copied, f"{choice.label}: the copy ended with status {running.status}")
            return not running.status

    async def _clean(self, running: AsyncExec) -> None:
        """Let the guest remove what it has."""
        await running.signal("TERM")
        with suppress(TimeoutError, UmlabError):
            async with asyncio.timeout(_CLEAN_TIME):
                while await running.read() is not None:
                    pass


async def _all(works: Iterable[Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(each) for each in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read() -> bytes:
    with suppress(PermissionError):
        await readable(0)
    return os.read(0, _READ_SIZE)
