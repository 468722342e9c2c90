"""What a simulated kernel answers: the console's commands, without sockets and threads.

It is measured against Debian's 6.1 kernel: the tests run the same cases on both.

Source: Linux arch/um/drivers/mconsole_kern.c and mconsole_user.c.
"""

from __future__ import annotations

import enum
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

from umlab.testing.device import Devices
from umlab.testing.fault import answer
from umlab.testing.procfs import Content, Facts, exists, files
from umlab.wire.mconsole import MAGIC, MAX_COMMAND, VERSION, ReplyFragment, serialize_reply

__all__ = ["Effect", "Outcome", "SimulatedKernel"]

MAX_REQUEST = 524
READ_SIZE = 4095
"""Bytes that ``proc`` reads of a file at once."""
SHOWN = 7
"""The level that a system request has for its first line."""
BLANKS = b" \t\n\v\f\r"
LAST = serialize_reply(ReplyFragment(0, False, b""))


class Effect(enum.Enum):
    """What a command does to the machine, once it is answered."""

    NONE = enum.auto()
    HALT = enum.auto()
    REBOOT = enum.auto()
    PANIC = enum.auto()
    CRASH = enum.auto()
    WEDGE = enum.auto()


class Outcome(NamedTuple):
    """What comes of a request.

    Attributes:
        request: The command's text as the kernel read it, ``None`` where it refused to.
        datagrams: The answer.
        effect: What happens after the answer.
    """

    request: bytes | None
    datagrams: list[bytes]
    effect: Effect = Effect.NONE


class SimulatedKernel:
    """The kernel of a guest; everything may be changed while it answers.

    Attributes:
        facts: What it says about itself.
        files: Path below ``/proc`` to text, or to a function that returns it; add to it and change it.
        devices: What is plugged in.
        stopped: Whether it was told to ``stop``.
        log: What ``log`` and system requests wrote to the kernel's log.
        pids: The processes that ``stack`` finds.
    """

    def __init__(self, release: str, nodename: str, memory: int) -> None:
        build = "#1 Sat Jul  4 15:38:16 UTC 2026"
        self._booted_at = time.monotonic()
        self.facts = Facts(
            nodename=nodename,
            release=release,
            build=build,
            command_line="mem=128M con=null con0=null,fd:1 root=98:0 console=tty0",
            memory=memory,
            memory_free=memory * 6 // 7,
            load=(0.0, 0.0, 0.0),
            console_level=7,
            requests=0,
            uptime=lambda: time.monotonic() - self._booted_at,
            boot_id="",
        )
        self.files: dict[str, Content] = files(self.facts)
        self.log: list[str] = []
        self.pids = {1, 2}
        self.boot()

    def boot(self) -> None:
        """Start anew: what a reboot forgets is forgotten."""
        self._booted_at = time.monotonic()
        self._buffer = bytearray(MAX_REQUEST)
        self.facts.boot_id = str(uuid.uuid4())
        self.facts.requests = 0
        self.facts.console_level = 7
        self.devices = Devices()
        self.stopped = False

    def receive(self, data: bytes) -> Outcome:
        """Answer one datagram as the kernel does, malformed ones included.

        A datagram is read over the one before: what is not in it is still there.
        """
        # One that is stopped takes its requests without an interrupt and without a switch of context.
        self.facts.requests += not self.stopped
        self._buffer[: len(data)] = data[:MAX_REQUEST]
        magic, version, length = (int.from_bytes(self._buffer[at : at + 4], "little") for at in (0, 4, 8))
        if magic != MAGIC:
            return Outcome(None, [b"ERR Version 0 mconsole clients are not supported by this driver"])
        if length > MAX_COMMAND:
            return Outcome(None, answer(b"Request too large", 1))
        request = bytes(self._buffer[12 : 12 + length]).partition(b"\0")[0]
        datagrams, effect = self.run(request)
        if version != VERSION:
            datagrams = answer(b"This driver only supports version 2 clients", 1) + datagrams
        return Outcome(request, datagrams, effect)

    def run(self, request: bytes) -> tuple[list[bytes], Effect]:
        """Run a command and return the answer's datagrams and what happens after them."""
        for name, command in _COMMANDS.items():
            # Anything may follow the name, without a blank.
            if request.startswith(name):
                return command(self, request[len(name) :].lstrip(BLANKS))
        return answer(b"Unknown command", 1), Effect.NONE

    def _version(self, _: bytes) -> tuple[list[bytes], Effect]:
        facts = self.facts
        text = f"Linux {facts.nodename} {facts.release} {facts.build} x86_64"
        return answer(_bytes(text)), Effect.NONE

    def _help(self, _: bytes) -> tuple[list[bytes], Effect]:
        return answer(_HELP.encode()), Effect.NONE

    def _stop(self, _: bytes) -> tuple[list[bytes], Effect]:
        if self.stopped:
            return answer(b"Already stopped", 1), Effect.NONE
        self.stopped = True
        return answer(b"stopped"), Effect.NONE

    def _go(self, _: bytes) -> tuple[list[bytes], Effect]:
        if not self.stopped:
            return answer(b"Not stopped", 1), Effect.NONE
        self.stopped = False
        return answer(b""), Effect.NONE

    def _log(self, text: bytes) -> tuple[list[bytes], Effect]:
        self.log.append(text.decode("utf-8", "backslashreplace").removesuffix("\n"))
        return answer(b""), Effect.NONE

    def _config(self, text: bytes) -> tuple[list[bytes], Effect]:
        err, said = self.devices.config(text.decode("utf-8", "surrogateescape"))
        return answer(_bytes(said), err), Effect.NONE

    def _remove(self, text: bytes) -> tuple[list[bytes], Effect]:
        err, said = self.devices.remove(text.decode("utf-8", "surrogateescape"))
        return answer(_bytes(said), err), Effect.NONE

    def _proc(self, name: bytes) -> tuple[list[bytes], Effect]:
        steps = [
            step for step in name.decode("utf-8", "surrogateescape").split("/") if step not in ("", "..")
        ]
        path = "/".join(steps)
        content = self.files.get(path)
        if content is None:
            unreadable = exists(path, self.files)
            return answer(b"Read of file failed" if unreadable else b"Failed to open file", 1), Effect.NONE
        data = _bytes(content if isinstance(content, str) else content())
        datagrams = [_fragment(b"\n")]
        for at in range(0, len(data), READ_SIZE):
            datagrams += _fragments(data[at : at + READ_SIZE])
        return [*datagrams, LAST], Effect.NONE

    def _stack(self, text: bytes) -> tuple[list[bytes], Effect]:
        digits = text[: len(text) - len(text.lstrip(b"0123456789"))]
        if not digits:
            return answer(b"Please specify a pid", 1), Effect.NONE
        if int(digits) not in self.pids:
            return answer(b"Couldn't find that pid", 1), Effect.NONE
        return [*self._print(_STACK), LAST], Effect.NONE

    def _sysrq(self, text: bytes) -> tuple[list[bytes], Effect]:
        key = text[:1].decode("latin-1")
        if key == "b":
            # The machine restarts before the line goes out, and 6.1 does not come up again.
            return [LAST], Effect.WEDGE
        title, lines, effect = _REQUESTS.get(key, (_SYSRQ_HELP, [], Effect.NONE))
        datagrams = self._print([(0, f"sysrq: {title}\n")])
        if key.isascii() and key.isdigit():
            self.facts.console_level = int(key)
            datagrams += self._print([(0, f"sysrq: Loglevel set to {key}\n")])
        datagrams += self._print(lines)
        if effect not in (Effect.PANIC, Effect.CRASH):
            datagrams.append(LAST)
        return datagrams, effect

    def _print(self, lines: list[tuple[int, str]]) -> list[bytes]:
        self.log += [text.removesuffix("\n") for _, text in lines]
        shown = [text for level, text in lines if level < self.facts.console_level or level == 0]
        return [fragment for text in shown for fragment in _fragments(_bytes(text))]

    def _end(self, effect: Effect) -> tuple[list[bytes], Effect]:
        return answer(b""), effect


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _fragment(text: bytes) -> bytes:
    return serialize_reply(ReplyFragment(0, True, text))


def _fragments(text: bytes) -> list[bytes]:
    return [_fragment(text[at : at + MAX_COMMAND]) for at in range(0, len(text), MAX_COMMAND)]


_Command = Callable[[SimulatedKernel, bytes], tuple[list[bytes], Effect]]
_COMMANDS: dict[bytes, _Command] = {
    b"version": SimulatedKernel._version,
    b"halt": lambda kernel, _: kernel._end(Effect.HALT),
    b"reboot": lambda kernel, _: kernel._end(Effect.REBOOT),
    b"config": SimulatedKernel._config,
    b"remove": SimulatedKernel._remove,
    b"sysrq": SimulatedKernel._sysrq,
    b"help": SimulatedKernel._help,
    # Without an init that knows better, control-alt-delete restarts the machine.
    b"cad": lambda kernel, _: kernel._end(Effect.REBOOT),
    b"stop": SimulatedKernel._stop,
    b"go": SimulatedKernel._go,
    b"log": SimulatedKernel._log,
    b"proc": SimulatedKernel._proc,
    b"stack": SimulatedKernel._stack,
}

_HELP = """Commands: \n\
    version - Get kernel version \n\
    help - Print this message \n\
    halt - Halt UML \n\
    reboot - Reboot UML \n\
    config <dev>=<config> - Add a new device to UML;  \n\
\tsame syntax as command line \n\
    config <dev> - Query the configuration of a device \n\
    remove <dev> - Remove a device from UML \n\
    sysrq <letter> - Performs the SysRq action controlled by the letter \n\
    cad - invoke the Ctrl-Alt-Del handler \n\
    stop - pause the UML; it will do nothing until it receives a 'go' \n\
    go - continue the UML after a 'stop' \n\
    log <string> - make UML enter <string> into the kernel log
    proc <file> - returns the contents of the UML's /proc/<file>
    stack <pid> - returns the stack of the specified pid
"""
_SYSRQ_HELP = (
    "HELP : loglevel(0-9) reboot(b) crash(c) terminate-all-tasks(e) memory-full-oom-kill(f) "
    "kill-all-tasks(i) thaw-filesystems(j) show-memory-usage(m) nice-all-RT-tasks(n) poweroff(o) "
    "show-registers(p) show-all-timers(q) sync(s) show-task-states(t) unmount(u) show-blocked-tasks(w) "
)
# Level and text of each line: one is shown if its level is lower than the console's.
_MEMORY = [
    (4, "Mem-Info:\n"),
    (
        4,
        "active_anon:1 inactive_anon:25 isolated_anon:0\n active_file:0 inactive_file:0 isolated_file:0\n"
        " unevictable:490 dirty:0 writeback:0\n slab_reclaimable:100 slab_unreclaimable:2403\n"
        " mapped:400 shmem:0 pagetables:11\n sec_pagetables:0 bounce:0\n kernel_misc_reclaimable:0\n"
        " free:24531 free_pcp:265 free_cma:0\n",
    ),
    (
        4,
        "Node 0 active_anon:4kB inactive_anon:100kB active_file:0kB inactive_file:0kB unevictable:1960kB "
        "isolated(anon):0kB isolated(file):0kB mapped:1600kB dirty:0kB writeback:0kB shmem:0kB "
        "writeback_tmp:0kB kernel_stack:608kB pagetables:44kB sec_pagetables:0kB all_unreclaimable? no\n",
    ),
    (
        4,
        "Normal free:98124kB boost:0kB min:1332kB low:1664kB high:1996kB reserved_highatomic:0KB "
        "active_anon:4kB inactive_anon:100kB active_file:0kB inactive_file:0kB unevictable:1960kB "
        "writepending:0kB present:392484kB managed:113324kB mlocked:0kB bounce:0kB free_pcp:1060kB "
        "local_pcp:1060kB free_cma:0kB\n",
    ),
    (4, "lowmem_reserve[]: 0 0\n"),
    (
        4,
        "Normal: 3*4kB (UME) 2*8kB (UM) 11*16kB (UME) 74*32kB (UM) 47*64kB (UME) 13*128kB (UM) 5*256kB (UM) "
        "5*512kB (UME) 3*1024kB (UME) 3*2048kB (ME) 19*4096kB (M) = 98124kB\n",
    ),
    (4, "490 total pagecache pages\n"),
    (4, "0 pages in swap cache\n"),
    (4, "Free swap  = 0kB\n"),
    (4, "Total swap = 0kB\n"),
    (4, "98121 pages RAM\n"),
    (4, "0 pages HighMem/MovableOnly\n"),
    (4, "69790 pages reserved\n"),
]
_REGISTERS = [
    (4, "\n"),
    (4, "Modules linked in:\n"),
    (6, "Pid: 0, comm: swapper Not tainted 6.1.176\n"),
    (6, "RIP: 0000:0x0\n"),
    (6, "RSP: 0000000000000000  EFLAGS: 00000000\n"),
    (6, "RAX: 0000000000000000 RBX: 000000000000005f RCX: 0000000000000000\n"),
    (6, "RDX: 0000000000000000 RSI: 0000000000000000 RDI: 0000000000000000\n"),
    (6, "RBP: 0000000060045bbb R08: 0000000000000000 R09: 0000000000000000\n"),
    (6, "R10: 0000000000000000 R11: 0000000000000000 R12: 00000000608cfe10\n"),
    (6, "R13: 0000000077d640a3 R14: 0000000060a48010 R15: 0000000000000002\n"),
]
_STACK = [
    (6, "Stack:\n"),
    (4, " 70c20000 60070dff 70c37dd0 6002c2f1\n"),
    (4, " 70c20418 60a48184 70c37e30 606a06cb\n"),
    (4, " 70c37e30 00000008 70c37e20 00000004\n"),
    (6, "Call Trace:\n"),
    (6, " [<60070dff>] ? assert_clock_updated.isra.0+0x0/0x4b\n"),
    (6, " [<6002c2f1>] __switch_to+0x50/0x7f\n"),
    (6, " [<606a06cb>] __schedule+0x51b/0x568\n"),
    (6, " [<606a07e0>] schedule+0xc8/0x115\n"),
    (6, " [<600588b7>] ? signal_pending+0x0/0x25\n"),
    (6, " [<6005d203>] sys_rt_sigsuspend+0xb9/0xd7\n"),
    (6, " [<6002f38f>] handle_syscall+0x79/0xa7\n"),
    (6, " [<60048bdf>] userspace+0x451/0x570\n"),
    (6, " [<6002c0dd>] new_thread_handler+0xae/0xb0\n"),
]
_TASK = [(6, "task:init            state:S stack:0     pid:1     ppid:0      flags:0x00000000\n")]
_PANIC = [
    (0, "Kernel panic - not syncing: sysrq triggered crash\n"),
    (0, "CPU: 0 PID: 674 Comm: exe Not tainted 6.1.176 #1 \n"),
]
_REQUESTS: dict[str, tuple[str, list[tuple[int, str]], Effect]] = {
    **{digit: ("Changing Loglevel", [], Effect.NONE) for digit in "0123456789"},
    "c": ("Trigger a crash", _PANIC, Effect.PANIC),
    "e": ("Terminate All Tasks", [], Effect.NONE),
    "f": ("Manual OOM execution", [], Effect.NONE),
    "i": ("Kill All Tasks", [], Effect.NONE),
    "j": ("Emergency Thaw of all frozen filesystems", [], Effect.NONE),
    "m": ("Show Memory", _MEMORY, Effect.NONE),
    "n": ("Nice All RT Tasks", [], Effect.NONE),
    "o": ("Power Off", [], Effect.HALT),
    "p": ("Show Regs", _REGISTERS, Effect.NONE),
    "q": ("Show clockevent devices & pending hrtimers (no others)", [], Effect.NONE),
    "s": ("Emergency Sync", [], Effect.NONE),
    # A 6.1 kernel dies of it half way.
    "t": ("Show State", [*_TASK, *_STACK], Effect.CRASH),
    "u": ("Emergency Remount R/O", [], Effect.NONE),
    "w": ("Show Blocked State", [], Effect.NONE),
}
