"""Build a UML kernel: out of its source's tree, with what umlab needs, into the store.

Source: Linux Documentation/kbuild/{kbuild,modules}.rst, Makefile, arch/um/Makefile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from umlab.errors import LabError
from umlab.guest.guard import Guard, guarded
from umlab.guest.kernel.config import parse_config
from umlab.guest.kernel.option import not_taken, serialize_fragment, wanted_options
from umlab.guest.kernel.source import KernelSource, build_programs
from umlab.guest.kernel.store import (
    Kernel,
    check_kernel_name,
    find_kernel,
    kernel_names,
    remove_kernel,
    replace_kernel,
)
from umlab.guest.place import BUILD, cache_directory
from umlab.guest.program import check_programs, program_path

#: Seconds that make has to remove half written files when it is told to end.
_TERM_TIMEOUT = 10.0
#: A line for each object that is made, such as ``  CC [M]  drivers/net/dummy.o``.
_OBJECT = re.compile(rb"^ {2}(?:CC|AS|HOSTCC)\b", re.MULTILINE)
#: The line of a log that tells most, the more telling first.
_TELLING = (
    rb"No space left|undefined reference|multiple definition",
    rb"\berror:",
    # What unpacks a source: the first one knows why, the others that it has failed.
    rb"^(?:tar|xz|gzip|bzip2|zstd): ",
    rb"\*\*\* |rror[: ]|cannot ",
)
#: What writes coverage down at the end of a kernel: its linker script leaves out the destructors that gcc
#: makes for that.
_GCOV_HEADER = """\
extern void __gcov_exit(void);
static void (*const write_coverage)(void) __attribute__((used, section(".fini_array"))) = __gcov_exit;
"""
#: libgcov, which is linked to the kernel, has a function of the same name as one that two of its objects use.
_GCOV_RENAME = "-Dmangle_path=kernel_mangle_path"
#: What of our environment would be taken for an order to make or to the kernel's build.
_ORDERS = re.compile(
    r"MAKE\w*|MFLAGS|GNUMAKEFLAGS|KBUILD_\w+|K?CONFIG_\w+|ARCH|SUBARCH|O|V|INSTALL_\w+|LOCALVERSION"
)


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What is to be built.

    Attributes:
        source: From what.
        name: What the kernel is called afterwards.
        options: Beside, or instead of, the options of :func:`~umlab.guest.kernel.option.wanted_options`.
        jobs: Compilers that run at once; as many as we have processors by default.
        debug: Keep symbols, and the objects and the source that they tell of.
        gcov: The same, and count which lines run.
    """

    source: KernelSource
    name: str
    options: dict[str, str] = field(default_factory=dict)
    jobs: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    debug: bool = False
    gcov: bool = False

    @property
    def keeps_symbols(self) -> bool:
        """Whether its user reads its symbols, objects and source."""
        return self.debug or self.gcov


@dataclass(frozen=True, slots=True)
class Built:
    """A kernel that was built.

    Attributes:
        kernel: It.
        log: What its build has printed.
        objects: Where its objects were made and, with symbols, still are; as they are for a source tree,
            of which the next build compiles only what has changed.
        source: The source that its symbols tell of, where that is still there.
        not_taken: Options that it has not as they were wanted, with their values.
        seconds: How long it took.
    """

    kernel: Kernel
    log: str
    objects: str | None
    source: str | None
    not_taken: dict[str, str]
    seconds: float


#: Takes what is being done and, while objects are compiled, how many there are.
Report = Callable[[str, int], None]


async def build_kernel(order: BuildOrder, report: Report) -> Built:
    """Build a kernel; one that fails or is cancelled leaves no process, and objects for the next one.

    Raises:
        LabError: A program is missing, another build of this name runs, or it fails; names its log.
    """
    check_kernel_name(order.name)
    check_programs(build_programs(order.source))
    started = time.monotonic()
    work = cache_directory(BUILD) / order.name
    with _told_errors(order.name), _locked(work, order.name) as lock:
        _forget_other_source(work, order.source)
        build = _Build(order, work, lock, report)
        missed = await build.run()
        kernel = find_kernel(order.name)
        if not (order.keeps_symbols or order.source.is_tree):
            shutil.rmtree(work)
    return Built(
        kernel,
        os.path.join(os.path.dirname(kernel.path), "build.log"),
        str(build.objects) if work.exists() else None,
        str(build.source) if build.source.exists() else None,
        missed,
        time.monotonic() - started,
    )


def remove(name: str) -> None:
    """Remove a kernel from the store, and what its builds have left in the cache; guests that run it go on.

    Raises:
        LabError: There is none of that name, it is being built, or it cannot be removed.
    """
    check_kernel_name(name)
    work = cache_directory(BUILD) / name
    in_store = name in kernel_names()
    if not (in_store or work.exists()):
        # Says which there are; a lock would only stay behind.
        remove_kernel(name)
    with _locked(work, name):
        shutil.rmtree(work, ignore_errors=True)
        if in_store:
            remove_kernel(name)


class _Build:
    """One run of all steps."""

    def __init__(self, order: BuildOrder, work: Path, lock: int, report: Report) -> None:
        self.order = order
        self.work = work
        self._lock = lock
        self.log = work / "build.log"
        self.objects = work / "objects"
        self.source = Path(order.source.path) if order.source.is_tree else work / "source"
        self._report = report
        self.log.write_bytes(b"")

    async def run(self) -> dict[str, str]:
        """Build the kernel and put it into the store; return the options that were not taken."""
        if not self.order.source.is_tree and not self.source.exists():
            await self._unpack()
        missed = await self._configure()
        config = parse_config((self.objects / ".config").read_bytes())
        has_modules = config.get("CONFIG_MODULES") == "y"
        self._report("compiling", 0)
        goals = ["linux", *(["modules"] if has_modules else [])]
        # What gdb can ask a kernel, such as lx-dmesg.
        goals += ["scripts_gdb"] if self.order.keeps_symbols else []
        words = self._gcov_words() if self.order.gcov else []
        await self._make(f"-j{self.order.jobs}", *words, *goals, counts=True)
        await self._install(has_modules=has_modules)
        return missed

    async def _unpack(self) -> None:
        self._report(f"unpacking {self.order.source.path}", 0)
        half = self.work / "source.new"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        await self._do(["tar", "-xf", self.order.source.path, "-C", str(half), "--strip-components=1"])
        half.rename(self.source)

    async def _configure(self) -> dict[str, str]:
        self._report("configuring", 0)
        self.objects.mkdir(exist_ok=True)
        await self._make("defconfig")
        wanted = wanted_options(debug=self.order.debug, gcov=self.order.gcov) | self.order.options
        # The last line of an option counts.
        _append(self.objects / ".config", serialize_fragment(wanted))
        await self._make("olddefconfig")
        return not_taken(wanted, parse_config((self.objects / ".config").read_bytes()))

    def _gcov_words(self) -> list[str]:
        """Return flags of two objects, without which coverage is neither linked nor written."""
        header = self.objects / "umlab-gcov.h"
        if not header.exists():
            header.write_text(_GCOV_HEADER)
        return [
            f"CFLAGS_seq_file.o={_GCOV_RENAME} -include {header}",
            f"CFLAGS_seq_buf.o={_GCOV_RENAME}",
        ]

    async def _install(self, *, has_modules: bool) -> None:
        self._report("installing", 0)
        new = self.work / "new"
        shutil.rmtree(new, ignore_errors=True)
        release = (self.objects / "include/config/kernel.release").read_text().strip()
        modules = new / "modules/lib/modules" / release
        modules.mkdir(parents=True)
        if has_modules:
            strip = [] if self.order.keeps_symbols else ["INSTALL_MOD_STRIP=1"]
            await self._make(f"INSTALL_MOD_PATH={new}/modules", *strip, "modules_install")
            for link in ("build", "source"):
                (modules / link).unlink(missing_ok=True)
        else:
            shutil.copy(self.objects / "modules.builtin", modules)
            (modules / "modules.dep").touch()
        if self.order.keeps_symbols:
            shutil.copy2(self.objects / "linux", new)
        else:
            await self._do(["strip", "-o", str(new / "linux"), str(self.objects / "linux")])
        shutil.copy(self.objects / ".config", new / "config")
        shutil.copy(self.log, new)
        replace_kernel(new, self.order.name)

    async def _make(self, *words: str, counts: bool = False) -> None:
        await self._do(
            ["make", "-C", str(self.source), f"O={self.objects}", "ARCH=um", *words], counts=counts
        )

    async def _do(self, command: Sequence[str], *, counts: bool = False) -> None:
        """Run one program, with what it prints in the log."""
        done = 0
        async with _process(command, self._lock) as process:
            assert process.stdout is not None
            while data := await process.stdout.read(1 << 16):
                _append(self.log, data)
                if counts:
                    # A line that is cut in two counts once at most: the count is for the eye.
                    done += len(_OBJECT.findall(data))
                    self._report("compiling", done)
            status = await process.wait()
        if status:
            raise self._failed(command, status)

    def _failed(self, command: Sequence[str], status: int) -> LabError:
        lines = self.log.read_bytes().splitlines()
        told = next((line for words in _TELLING for line in lines if re.search(words, line)), b"")
        reason = told.decode("utf-8", "replace").strip()[:300] or f"{command[0]} ended with status {status}"
        return LabError(
            f"building the kernel {self.order.name} failed: {reason}; the whole log is {self.log}"
        )


def _append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


@contextlib.asynccontextmanager
async def _process(command: Sequence[str], lock: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program in a process group of its own, which has ended after the block, however we end.

    It holds the lock as well: where we are killed, what has left the group is not to meet another build.
    """
    with guarded() as guard:
        start = asyncio.ensure_future(_start(command, lock, guard))
        try:
            # Cancelled by itself, it would end the program alone and not what that has started.
            yield await asyncio.shield(start)
        finally:
            process = await start
            if process.returncode is None:
                await asyncio.shield(_end(process))


async def _start(command: Sequence[str], lock: int, guard: Guard) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not _ORDERS.fullmatch(name)}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment | {"LC_ALL": "C", "PATH": program_path()},
        start_new_session=True,
        pass_fds=(lock,),
    )
    guard.arm(process.pid)
    return process


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program and what it has started: until then its output has not ended."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        # Nobody reads on: what is still printed must not hold it up.
        await asyncio.wait_for(process.communicate(), _TERM_TIMEOUT)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextmanager
def _locked(work: Path, name: str) -> Iterator[int]:
    """Hold the folder of a kernel's build for the block; yield the descriptor of its lock."""
    work.mkdir(exist_ok=True)
    # Beside the folder, which does not outlive every build.
    with open(work.with_name(f".{name}.lock"), "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"the kernel {name} is being built already; take another --name") from None
        yield lock.fileno()


@contextmanager
def _told_errors(name: str) -> Iterator[None]:
    """Tell of a full disk, or another one's file, as of any other reason why a build fails."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise LabError(f"building the kernel {name} failed: {where}{error.strerror}") from None


def _forget_other_source(work: Path, source: KernelSource) -> None:
    """Remove what an earlier build has made of another source."""
    note = work / "source.txt"
    if note.exists() and note.read_text() == source.identity:
        return
    for name in ("objects", "source"):
        shutil.rmtree(work / name, ignore_errors=True)
    note.write_text(source.identity)
