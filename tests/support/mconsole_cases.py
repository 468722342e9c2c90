"""Calls of ``uml_mconsole`` whose outcome is compared: the original's, recorded or live, with ours.

A case runs in a place of its own: a home directory whose guest ``m1`` is a console of the test's
choice, a working directory with some files, and a process that stands in for the guest's when a
signal is asked for.  Its output names none of that: paths below the place's root become ``{root}``.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.deadline import scaled, wait_until

OURS = [
    sys.executable,
    "-c",
    "import sys; from umlab.compat.uml_mconsole import main; sys.exit(main())",
]
HANGS_AFTER = 12.0
"""Seconds after which a call counts as hanging; over twice the limit of a short command."""

FILES = {
    "lines.txt": b"line one\nline two\n",
    "open.txt": b"no line's end",
    "big.txt": b"0123456789" * 120,
    "empty.txt": b"",
    "disk": b"\0" * 4096,
    "sub/disk": b"\0" * 4096,
}


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        name: Names it in recordings, tests and the list of differences.
        arguments: The words after the program's name; ``{root}`` stands for the place.
        stdin: What is piped in; ``None`` gives no input.
        typed: Lines typed at a terminal, each after a prompt; excludes ``stdin``.
        silent: Whether the guest never answers.
        pid: Whether the guest's pid file exists.
        destructive: Whether the guest is another one afterwards.
        volatile: Whether the answer differs from time to time: only its first line is compared live.
    """

    name: str
    arguments: tuple[str, ...]
    stdin: bytes | None = None
    typed: tuple[bytes, ...] | None = None
    silent: bool = False
    pid: bool = True
    destructive: bool = False
    volatile: bool = False


@dataclass
class Outcome:
    """What a call did.

    Attributes:
        stdout: Its output, a terminal's with both streams.
        stderr: Its complaints.
        status: Its exit status, negative for a signal, ``None`` if it hung.
        signalled: Whether the process that stands in for the guest's was interrupted.
        requests: What reached the guest, where that was watched.
    """

    stdout: bytes
    stderr: bytes
    status: int | None
    signalled: bool
    requests: list[bytes] = field(default_factory=list)

    def difference(self, other: Outcome) -> set[str]:
        """Return the names of the attributes that differ."""
        return {name for name, value in vars(self).items() if value != getattr(other, name)}


def one_shot(name: str, *words: str, **options: bool) -> Case:
    return Case(name, ("m1", *words), **options)  # type: ignore[arg-type]


CASES = [
    Case("usage", ()),
    one_shot("version", "version"),
    one_shot("version-with-words", "version", "and", "more"),
    one_shot("version-prefix", "versionXYZ"),
    one_shot("help", "help"),
    one_shot("unknown", "bogus"),
    one_shot("uppercase", "VERSION"),
    one_shot("leading-blank", " version"),
    one_shot("empty-command", ""),
    one_shot("stop", "stop"),
    one_shot("stop-again", "stop"),
    one_shot("version-while-stopped", "version"),
    one_shot("go", "go"),
    one_shot("go-again", "go"),
    one_shot("log", "log", "hello", "world"),
    one_shot("log-bare", "log"),
    one_shot("log-long", "log", "x" * 520),
    one_shot("log-of-one-piece", "log", "x" * 506),
    one_shot("log-file", "log", "-f", "lines.txt"),
    one_shot("log-file-absolute", "log", "-f", "{root}/cwd/lines.txt"),
    one_shot("log-file-without-end", "log", "-f", "open.txt"),
    one_shot("log-file-long", "log", "-f", "big.txt"),
    one_shot("log-file-empty", "log", "-f", "empty.txt"),
    one_shot("log-file-missing", "log", "-f", "nosuch"),
    one_shot("log-file-unnamed", "log", "-f"),
    one_shot("log-file-attached", "log", "-flines.txt"),
    one_shot("config-bare", "config"),
    one_shot("config-unknown", "config", "bogus=1"),
    one_shot("config-eth", "config", "eth0=daemon,,,/nosuch"),
    one_shot("config-eth-again", "config", "eth0=daemon,,,/nosuch"),
    one_shot("config-eth-get", "config", "eth0"),
    one_shot("config-eth-transport", "config", "eth1=bogus"),
    one_shot("remove-eth", "remove", "eth0"),
    one_shot("remove-eth-missing", "remove", "eth7"),
    one_shot("remove-bare", "remove"),
    one_shot("config-ubd", "config", "ubd3=disk"),
    one_shot("config-ubd-get", "config", "ubd3"),
    one_shot("config-ubd-again", "config", "ubd3=disk"),
    one_shot("remove-ubd", "remove", "ubd3"),
    one_shot("config-ubd-cow", "config", "ubd4=cow,disk"),
    one_shot("config-ubd-cow-get", "config", "ubd4"),
    one_shot("remove-ubd-cow", "remove", "ubd4"),
    one_shot("config-ubd-directory", "config", "ubd3=sub/disk,link/disk"),
    one_shot("remove-ubd-directory", "remove", "ubd3"),
    one_shot("config-ubd-absolute", "config", "ubd3={root}/cwd/disk"),
    one_shot("remove-ubd-absolute", "remove", "ubd3"),
    one_shot("config-ubd-missing", "config", "ubd9=nosuch"),
    one_shot("config-ubd-no-directory", "config", "ubd9=d/nosuch,x/y,ser"),
    one_shot("config-ubd-blank", "config", " ubd5=disk"),
    one_shot("remove-ubd-blank", "remove", "ubd5"),
    one_shot("config-ubd-colon", "config", "ubd5:nosuch"),
    one_shot("config-ubd-flags", "config", "ubd6r=disk,,serial"),
    one_shot("remove-ubd-flags", "remove", "ubd6"),
    one_shot("config-mem", "config", "mem"),
    one_shot("sysrq", "sysrq"),
    one_shot("sysrq-loglevel", "sysrq", "8"),
    one_shot("proc-version", "proc", "version"),
    one_shot("proc-uptime", "proc", "uptime", volatile=True),
    one_shot("proc-missing", "proc", "nosuch"),
    one_shot("proc-bare", "proc"),
    one_shot("stack-missing", "stack", "9999"),
    one_shot("stack-bare", "stack"),
    one_shot("mconsole-version", "mconsole-version"),
    one_shot("mconsole-version-prefix", "mconsole-versionx"),
    one_shot("quit", "quit"),
    one_shot("switch", "switch", "m1"),
    one_shot("switch-attached", "switchm1"),
    one_shot("switch-missing", "switch", "nosuch"),
    one_shot("switch-bare", "switch"),
    one_shot("umlfs-bare", "umlfs"),
    one_shot("umlfs", "umlfs", "lines.txt"),
    one_shot("int", "int"),
    one_shot("int-without-pid", "int", pid=False),
    one_shot("int-prefix", "interrupted"),
    Case("socket-path", ("{root}/home/.uml/m1/mconsole", "version")),
    Case("socket-path-int", ("{root}/home/.uml/m1/mconsole", "int")),
    Case("socket-path-pipe", ("{root}/home/.uml/m1/mconsole",), b"version\n"),
    Case("run-directory", ("{root}/home/.uml/m1", "version")),
    Case("long-name-pipe", ("a-rather-long-name",), b"version\n"),
    Case("missing", ("nosuch", "version")),
    Case("missing-log", ("nosuch", "log", "x")),
    Case("missing-int", ("nosuch", "int")),
    Case("missing-pipe", ("nosuch",), b"version\nswitch m1\nversion\n"),
    Case("missing-path", ("{root}/nosuch", "version")),
    Case("not-a-socket", ("{root}/cwd/disk", "version")),
    Case("stale-socket", ("{root}/cwd/stale", "version")),
    Case("path-too-long", ("/" + "x" * 120, "version")),
    Case("pipe", ("m1",), b"version\nbogus\nproc version\n"),
    Case("pipe-without-end", ("m1",), b"version"),
    Case("pipe-empty", ("m1",), b""),
    Case("pipe-blank-lines", ("m1",), b"\n   \nversion\n"),
    Case("pipe-quit", ("m1",), b"version\nquit\nversion\n"),
    Case("pipe-quit-prefix", ("m1",), b"quitx\nversion\n"),
    Case("pipe-quit-blank", ("m1",), b" quit\nversion\n"),
    Case("pipe-carriage-return", ("m1",), b"version\r\n"),
    Case("pipe-local", ("m1",), b"mconsole-version\nhelp\nlog hi\nlog -f lines.txt\n"),
    Case("pipe-switch", ("m1",), b"switch\nswitch nosuch\nversion\nswitch m1\nswitch   m1\nversion\n"),
    Case("pipe-error", ("m1",), b"remove eth7\n"),
    Case("pipe-umlfs", ("m1",), b"umlfs\nversion\n"),
    Case("pipe-int", ("m1",), b"int\nversion\n"),
    Case("pipe-long-log", ("m1",), b"log " + b"y" * 600 + b"\n"),
    Case("terminal", ("m1",), typed=(b"version\r", b"bogus\r", b"proc version\r", b"quit\r")),
    Case("terminal-end", ("m1",), typed=(b"version\r", b"\x04")),
    Case("terminal-empty-line", ("m1",), typed=(b"\r", b"version\r", b"quit\r")),
    Case("terminal-history", ("m1",), typed=(b"version\r", b"\x1b[A\r", b"quit\r")),
    Case("terminal-switch", ("m1",), typed=(b"switch nosuch\r", b"switch m1\r", b"quit\r")),
    Case("terminal-interrupt", ("m1",), typed=(b"version\r", b"\x03")),
    one_shot("cad", "cad", destructive=True),
    one_shot("reboot", "reboot", destructive=True),
    one_shot("halt", "halt", destructive=True),
    Case("silent", ("m1", "version"), silent=True),
    Case("silent-pipe", ("m1",), b"version\n", silent=True),
]


class Place:
    """The surroundings of a call.

    Attributes:
        root: The directory that holds everything.
        socket: Where the console of ``m1`` is to be.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.directory = root / "cwd"
        run_directory = self.home / ".uml" / "m1"
        run_directory.mkdir(parents=True)
        (self.home / ".uml" / "a-rather-long-name").symlink_to("m1")
        self.socket = run_directory / "mconsole"
        for name, content in FILES.items():
            file = self.directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (self.directory / "link").symlink_to("sub")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
            stale.bind(str(self.directory / "stale"))

    def run(self, program: list[str], case: Case) -> Outcome:
        """Make one call and return what it did, with the place's paths taken out."""
        with self._stand_in(case) as stand_in:
            command = program + [word.replace("{root}", str(self.root)) for word in case.arguments]
            environment = {**os.environ, "HOME": str(self.home), "TERM": "dumb", "INPUTRC": "/dev/null"}
            run = self._typed if case.typed is not None else self._piped
            stdout, stderr, status = run(command, environment, case)
            stand_in.send_signal(signal.SIGTERM)
            signalled = stand_in.wait() == -signal.SIGINT
        return Outcome(self._general(stdout), self._general(stderr), status, signalled)

    def _general(self, data: bytes) -> bytes:
        # A prompt shows eleven bytes of a path.
        return data.replace(bytes(self.root), b"{root}").replace(bytes(self.root)[:11], b"{root:.11}")

    @contextlib.contextmanager
    def _stand_in(self, case: Case) -> Iterator[subprocess.Popen[bytes]]:
        pid_file = self.socket.with_name("pid")
        pid_file.unlink(missing_ok=True)
        with subprocess.Popen(["sleep", "1000"]) as process:
            try:
                if case.pid:
                    pid_file.write_text(f"{process.pid}\n")
                yield process
            finally:
                process.kill()

    def _piped(
        self, command: list[str], environment: dict[str, str], case: Case
    ) -> tuple[bytes, bytes, int | None]:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=self.directory,
            # The original may signal its own process group.
            start_new_session=True,
        ) as process:
            try:
                return (*process.communicate(case.stdin or b"", scaled(HANGS_AFTER)), process.returncode)
            except subprocess.TimeoutExpired:
                process.kill()
                return (*process.communicate(), None)

    def _typed(
        self, command: list[str], environment: dict[str, str], case: Case
    ) -> tuple[bytes, bytes, int | None]:
        assert case.typed is not None
        master, slave = pty.openpty()
        try:
            termios.tcsetwinsize(slave, (24, 200))
            with subprocess.Popen(
                # Without a controlling terminal, control-C is no signal.
                ["setsid", "--ctty", *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment,
                cwd=self.directory,
            ) as process:
                os.close(slave)
                shown = b""
                for line in case.typed:
                    shown += _read_until(master, b") ")
                    os.write(master, line)
                shown += _read_until(master, None)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(scaled(HANGS_AFTER))
                status = process.poll()
                process.kill()
            return shown, b"", status
        finally:
            os.close(master)


def _read_until(master: int, prompt: bytes | None) -> bytes:
    """Return what a terminal shows until a prompt waits, or, without one, until it is closed."""
    shown = b""

    def done() -> bool:
        nonlocal shown
        if not select.select([master], [], [], 0)[0]:
            return False
        try:
            shown += os.read(master, 65536)
        except OSError:
            # EIO: the last process on the other side has closed it.
            return True
        return prompt is not None and shown.endswith(prompt)

    with contextlib.suppress(TimeoutError):
        wait_until(done, HANGS_AFTER, "prompt or end")
    return shown
