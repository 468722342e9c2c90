"""``umlab run`` up to the boot: options, what is refused before anything is made, what the guest is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cli_run import Run
from support.deadline import scaled, wait_until
from support.lab_thread import LabThread
from umlab.cli.run_order import RunOptions, RunOrder, make_order
from umlab.cli.run_stream import Pipes, Terminal, choose_streams
from umlab.daemon.place import runs_directory
from umlab.errors import LabError, UmlabError
from umlab.guest.cmdline import BessNic, DaemonNic, DiskRoot, HostRoot, TinyRoot
from umlab.guest.disk.cow import create_cow

MakeOrder = Callable[..., RunOrder]
OURS = {
    "PATH": "/bin",
    "HOME": "/home/u",
    "SHELL": "/bin/zsh",
    "TERM": "vt100",
    "LC_TIME": "C",
    "SECRET": "x",
}


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A program that says what a kernel says, and then dies as one that panics."""
    path = tmp_path / "linux"
    path.write_text(
        "#!/bin/sh\n"
        "case $1 in\n"
        "--version) echo 6.1.99 ;;\n"
        "--showconfig) printf '%s=y\\n' CONFIG_UML CONFIG_UML_NET CONFIG_UML_NET_DAEMON ;;\n"
        "*) printf 'Kernel panic - not syncing: no \\033[31mreason\\n'; kill -ABRT $$ ;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def order(runtime: Path, kernel: Path) -> MakeOrder:
    def make(**options: Any) -> RunOrder:
        return make_order(RunOptions(**{"command": ("true",), "kernel": str(kernel)} | options), OURS)

    return make


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 16))
    return path


def left() -> list[str]:
    """Return what a run has left in the runtime directory."""
    return os.listdir(runs_directory())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "write a command, or --shell for a prompt"),
        (("--shell", "true"), "write a command, or --shell, not both"),
        (("--timeout", "soon", "true"), "write a number of seconds, such as 60"),
        (("--timeout", "-1", "true"), "write a number of seconds, such as 60"),
        (("--timeout", "nan", "true"), "write a number of seconds, such as 60"),
        (("--mem", "much", "true"), "write a number and its unit"),
        (("--no-such-option", "true"), "No such option: --no-such-option"),
    ],
)
def test_wrong_command_line_is_a_failure_of_ours(run: Run, words: tuple[str, ...], complaint: str) -> None:
    done = run("run", *words)
    assert (done.status, done.out) == (125, "")
    assert complaint in done.complaint


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--kernel", "/nowhere/linux"), "there is no kernel /nowhere/linux"),
        (
            ("--kernel", "/bin/true"),
            "/bin/true is not a User Mode Linux kernel: it does not tell its version",
        ),
        (("--root", "nowhere"), "there is no image nowhere"),
        (("--kernel", ""), "the kernel name '' is not usable"),
        (("--rw", "/nowhere"), "--rw /nowhere: there is no such folder"),
        (("--rw", ""), "--rw '': there is no such folder"),
        (("--rw", "a b"), "--rw a b: a kernel cannot be told of it: its path '/"),
        (("--disk", "a b"), "must not contain ' '; make a link to it elsewhere"),
        (("--disk", "a,b:cow"), "must not contain ','; make a link to it elsewhere"),
        (("--kernel", "./pipe"), "pipe is not a User Mode Linux kernel: it is no file"),
        (("--rw", "/"), "--rw /: the guest has its own /; name a folder below it"),
        (("--rw", "/dev"), "--rw /dev: the guest has its own /dev; name a folder below it"),
        (("--disk", "/nowhere"), "image /nowhere: No such file or directory"),
        (("--disk", "/nowhere:cow"), "/nowhere"),
        (("--net", "nowhere"), "nowhere does not run; start it with: umlab switch run nowhere --background"),
        (("--net", "./nowhere"), "nobody listens at"),
        (("--mem", "36M"), "--mem: 36864 KiB, a command needs at least 64M"),
        (("--log", "/nowhere/log"), "cannot write to /nowhere/log: No such file or directory"),
        (("-e", "A-B=1"), "'A-B' is not the name of a variable"),
    ],
)
def test_what_is_not_there_is_told_and_nothing_is_made(
    run: Run,
    kernel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("a b")
    os.mkfifo("pipe")
    given = words if "--kernel" in words else ("--kernel", str(kernel), *words)
    done = run("run", "--json", *given, "--", "true")
    assert done.status == 125
    (record,) = done.records
    assert complaint in record["error"]
    assert record["status"] == 125
    assert done.complaint.startswith("umlab: ")
    assert left() == []


def test_kernel_that_dies_is_told_with_its_last_words(
    run: Run, kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "memory")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memory").mkdir()
    log = tmp_path / "log"
    done = run("run", "--root", "tiny", "--kernel", str(kernel), "--log", str(log), "--", "true")
    assert (done.status, done.out) == (125, "")
    assert done.err.splitlines() == [
        "umlab: the boot failed: Kernel panic - not syncing: no \\x1b[31mreason",
        "umlab: the last lines of its console:",
        "  Kernel panic - not syncing: no \\x1b[31mreason",
    ]
    assert log.read_bytes() == b"Kernel panic - not syncing: no \x1b[31mreason\n"
    assert left() == os.listdir(tmp_path / "memory") == []


def test_kernel_without_words_is_told_as_one_and_so_is_what_it_lacks(run: Run, kernel: Path) -> None:
    kernel.write_text("#!/bin/sh\n[ $1 != --version ] || echo 6.1.99\n")
    done = run("run", "--root", "tiny", "--mem", "64M", "--kernel", str(kernel), "--", "true")
    assert (done.status, done.err.splitlines()) == (
        125,
        [
            "umlab: the boot failed: it ended with status 0; it may be for want of memory: try --mem 96M",
            "umlab: it has written nothing to its console",
        ],
    )


def test_more_memory_than_there_is_is_warned_of(run: Run, kernel: Path) -> None:
    done = run("run", "--root", "tiny", "--mem", "900000G", "--kernel", str(kernel), "--", "true")
    assert done.status == 125
    assert "MiB of memory, fewer than the guest's 921600000: it is killed when it uses them" in done.err
    done = run("run", "--root", "tiny", "--kernel", str(kernel), "--", "true")
    assert "MiB of memory" not in done.err


@pytest.mark.usefixtures("runtime")
def test_time_limit_begins_before_the_boot(kernel: Path) -> None:
    kernel.write_text("#!/bin/sh\nexec sleep 60\n")
    words = ["run", "--timeout", "0.5", "--kernel", str(kernel), "--", "true"]
    command = [sys.executable, "-c", "from umlab.cli.main import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=scaled(9))
    assert (done.returncode, done.stderr) == (124, "umlab: the preparations did not end within 0.5 seconds\n")


@pytest.mark.parametrize(
    ("words", "lost", "status", "said"),
    [
        (("run", "--kernel", "/nowhere", "--", "true"), "stderr", 125, ""),
        (("run", "--kernel", "/nowhere", "--json", "--", "true"), "stdout", 125, "umlab: there is no kernel"),
        (("run", "--help"), "stdout", 125, "umlab: cannot write to standard output: No space left on device"),
        (("guest", "exec", "nobody", "--", "true"), "stderr", 125, ""),
        (("guest", "exec"), "stderr", 125, ""),
        (("guest", "logs", "nobody"), "stderr", 3, ""),
        (("--version",), "stderr", 0, "umlab "),
        (("--help",), "stdout", 1, "umlab: cannot write to standard output: No space left on device"),
    ],
)
@pytest.mark.usefixtures("runtime")
def test_status_says_what_it_means_though_nothing_can_be_written(
    words: tuple[str, ...], lost: str, status: int, said: str
) -> None:
    command = [sys.executable, "-c", "from umlab.cli.main import main; main()", *words]
    with open("/dev/full", "wb") as full:
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {lost: full}
        done = subprocess.run(command, **streams, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in (done.stderr or "")
    assert (done.stderr or done.stdout or "").startswith(said)


def test_no_room_for_the_memory_file_is_told(run: Run, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere")
    done = run("run", "--kernel", str(kernel), "--", "true")
    assert done.status == 125
    assert "no place for its memory file" in done.complaint
    assert left() == []


def test_runs_do_not_meet(order: MakeOrder) -> None:
    first, second = order(), order()
    assert first.spec.umid != second.spec.umid
    assert first.base == second.base == str(runs_directory())


def test_roots_say_what_the_guest_sees(order: MakeOrder, tmp_path: Path, disk: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "link").symlink_to("shared")
    link = str(tmp_path / "link")

    host = order(writable=(link,)).spec
    assert (host.root, host.writable) == (HostRoot(shared=(str(shared),)), (str(shared),))
    tiny = order(root="tiny", writable=(link,)).spec
    assert (tiny.root, tiny.extra, tiny.writable) == (TinyRoot(), (f"umlab.shared={shared}",), (str(shared),))
    image = order(root=str(disk))
    directory = f"{image.base}/{image.spec.umid}"
    assert image.spec.root == DiskRoot(f"{directory}/root.cow", str(disk), init=None)
    assert (image.spec.writable, image.last_script) == ((), None)


def test_disks_follow_the_root_and_only_some_are_written_to(order: MakeOrder, disk: Path) -> None:
    made = order(disks=(f"{disk}:cow", str(disk)))
    directory = f"{made.base}/{made.spec.umid}"
    assert made.spec.extra[:2] == (f"ubd1={directory}/disk1.cow,{disk}", f"ubd2={disk}")
    assert made.spec.writable == (str(disk),)
    assert made.last_script is not None
    assert "/dev/ubdb /dev/ubdc;" in made.last_script
    with pytest.raises(LabError, match="16 disks, a kernel has room for 15"):
        order(disks=(str(disk),) * 16)


def test_disk_in_use_is_refused(order: MakeOrder, disk: Path) -> None:
    script = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, 2); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, disk], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LabError, match=rf"disk is in use by process {holder.pid}; stop that first"):
            order(disks=(str(disk),))
        holder.communicate(b"\n")


def test_disk_of_a_run_is_refused_to_another_before_its_guest_has_opened_it(
    run: Run, kernel: Path, disk: Path
) -> None:
    """What is started in the place of the kernel waits, and never opens the disk."""
    gate = f"{kernel}.gate"
    os.mkfifo(gate)
    kernel.write_text(f"#!/bin/sh\ncase $1 in --version) exec echo 6.1.99 ;; esac\nread -r line <{gate}\n")
    words = ["run", "--root", "tiny", "--kernel", str(kernel), "--disk"]
    program = [sys.executable, "-c", "from umlab.cli.main import main; main()", *words]
    for first, second in ((disk, disk), (f"{disk}:cow", disk), (disk, f"{disk}:cow")):
        with subprocess.Popen([*program, str(first), "--", "true"], stderr=subprocess.PIPE) as running:
            # It can be opened when the kernel reads there.
            opened = wait_until(lambda: _opened(gate), 20, "the kernel runs")
            assert opened
            with open(opened, "w"):
                done = run(*words, str(second), "--", "true")
            assert running.wait(scaled(20)) == 125
        assert done.status == 125
        assert f"{disk} is in use by another run; stop that first" in done.complaint


def _opened(fifo: str) -> int | None:
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_cow_file_is_no_backing_file(order: MakeOrder, disk: Path, tmp_path: Path) -> None:
    create_cow(str(tmp_path / "cow"), str(disk))
    for options in ({"root": str(tmp_path / "cow")}, {"disks": (f"{tmp_path}/cow:cow",)}):
        with pytest.raises(LabError, match="is a COW file itself"):
            order(**options)
    disk.write_bytes(bytes(8192))
    with pytest.raises(LabError, match="too small"):
        order(disks=(f"{disk}:cow",))


@pytest.mark.parametrize(("kind", "nic"), [(socket.SOCK_STREAM, DaemonNic), (socket.SOCK_SEQPACKET, BessNic)])
def test_socket_of_a_switch_is_a_nic_that_is_up(
    order: MakeOrder, short_dir: Path, kind: socket.SocketKind, nic: type
) -> None:
    path = str(short_dir / "switch")
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(path)
        listener.listen()
        made = order(net=path)
    assert made.spec.nics == (nic(path),)
    device = "eth0" if nic is DaemonNic else "vec0"
    assert made.script.startswith(f"/run/umlab/busybox ip link set {device} up\n")


def test_switch_is_found_by_its_name(order: MakeOrder, runtime: Path, kernel: Path) -> None:
    runs_directory()
    with LabThread(runtime, "lan", ("lan",)):
        assert order(net="lan").spec.nics == (DaemonNic("/run/lan.ctl"),)
        assert order(net="lan/lan").spec.nics == (DaemonNic("/run/lan.ctl"),)
        with pytest.raises(UmlabError, match="no switch core"):
            order(net="lan/core")
        kernel.write_text(kernel.read_text().replace("CONFIG_UML_NET_DAEMON", "CONFIG_X"))
        with pytest.raises(
            LabError, match="has none of the transports of this switch, daemon; see: umlab switch"
        ):
            order(net="lan")


def facts(order: RunOrder, path: Path) -> list[str]:
    """Return what the script of a command prints on this machine."""
    done = subprocess.run(
        ["sh", "-c", order.script],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        cwd=path,
    )
    return done.stdout.splitlines()


def test_command_gets_a_part_of_our_environment(order: MakeOrder, tmp_path: Path) -> None:
    command = ("env",)
    variables = ("A=1 '2", "HOME=/h", "SECRET", "ABSENT")
    with_host = facts(order(command=command, variables=variables), tmp_path)
    assert {"PATH=/bin", "HOME=/h", "SHELL=/bin/zsh", "TERM=vt100", "LC_TIME=C", "A=1 '2", "SECRET=x"} <= set(
        with_host
    )
    assert not any(line.startswith("ABSENT") for line in with_host)
    without = facts(order(command=command, root="tiny"), tmp_path)
    assert {"TERM=vt100", "LC_TIME=C", "PATH=/usr/bin:/bin"} <= set(without)
    assert not {"HOME=/home/u", "SHELL=/bin/zsh", "SECRET=x"} & set(without)


def test_command_starts_where_we_are_if_the_guest_has_that(
    order: MakeOrder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, gone = tmp_path / "shared", tmp_path / "gone"
    shared.mkdir()
    gone.mkdir()

    def where(**options: Any) -> str:
        script = order(**options).script
        return next(line for line in script.splitlines() if line.startswith("cd "))

    elsewhere = "cd /root 2>/dev/null || cd /"
    monkeypatch.chdir(shared)
    assert (f"umlab.here={shared}" in order().spec.extra) is shared.is_relative_to("/tmp")
    assert where().startswith(f"cd {shared} ")
    assert where(root="tiny") == elsewhere
    assert where(root="tiny", writable=(str(tmp_path),)).startswith(f"cd {shared} ")
    monkeypatch.chdir("/proc/self")
    assert where() == elsewhere
    monkeypatch.chdir("/")
    assert where().startswith("cd / ")
    assert where(root="tiny") == elsewhere
    for path in ("/tmp/x", "/tmp/" + "long/" * 1000, "/tmp/a b", "/usr"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getcwd", lambda path=path: path)
            assert order().spec.extra == ((f"umlab.here={path}",) if path == "/tmp/x" else ())
            assert where().startswith("cd ")
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert where() == elsewhere


def test_shell_is_the_users_where_it_is_there(order: MakeOrder) -> None:
    assert order(command=()).argv == ("/bin/zsh",)
    assert order(command=(), root="tiny").argv == ("/bin/sh",)


def test_all_output_of_the_kernel_is_asked_for_where_it_is_kept(order: MakeOrder) -> None:
    assert order(root="tiny", all_output=True).spec.extra == ("loglevel=7",)


def test_streams_fit_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminals: set[int] = set()
    monkeypatch.setattr("umlab.cli.run_stream.os.isatty", lambda fd: fd in terminals)
    monkeypatch.setattr("umlab.cli.run_stream._is_null", lambda _fd: False)
    assert choose_streams(1, read_input=True).input == "pipe"
    assert choose_streams(1, read_input=False).input == "none"
    terminals |= {0}
    assert isinstance(choose_streams(1, read_input=True), Pipes)
    terminals |= {1}
    assert isinstance(choose_streams(1, read_input=True), Terminal)
    monkeypatch.setattr("umlab.cli.run_stream._is_null", lambda _fd: True)
    assert choose_streams(1, read_input=True).input == "none"
