"""What the launcher takes away, seen from a program in the place of the kernel."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import scaled
from umlab.guest import landlock, launch, mounts

has_mounts = os.geteuid() == 0 and mounts.is_possible()
BY_LANDLOCK = pytest.param(
    "landlock", marks=pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")
)
BY_MOUNTS = pytest.param(
    "mounts", marks=pytest.mark.skipif(not has_mounts, reason="mounts of one's own are for root")
)
contained = pytest.mark.parametrize("means", [BY_LANDLOCK, BY_MOUNTS])


def run(
    script: str, *writable: str, means: str = "none", parent: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a shell script under the launcher."""
    command = [sys.executable, "-I", "-S", launch.__file__, str(parent or os.getpid()), "-", "256"]
    command += [means, str(len(writable)), *writable, "/bin/sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), start_new_session=True)


def python(code: str) -> str:
    return f'"{sys.executable}" -I -S -c "{code}"'


def status_fields() -> dict[str, str]:
    lines = run("cat /proc/self/status").stdout.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@contained
def test_only_the_named_places_can_be_written_to(tmp_path: Path, means: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "old").write_text("old")
    file = tmp_path / "file"
    file.write_text("")
    done = run(
        f"cd {inside} && mkdir d && echo x >d/f && ln -s f d/l && mv d/f f && rm -r d && echo x >{file}\n"
        f"cat {outside}/old\n"
        f"echo x >{outside}/new\n"
        f"echo x >>{outside}/old\n"
        f"rm -f {outside}/old\n"
        f"mkdir {outside}/d; ln -s x {outside}/l; mv f {outside}/f; mv {file} {inside}\n"
        "echo through",
        str(inside),
        str(file),
        means=means,
    )
    assert done.stdout == "old" + "through\n"
    # A file may be copied from one place to another.
    assert set(os.listdir(inside)) - {"file"} == {"f"}
    assert file.read_text() == "x\n"
    assert os.listdir(outside) == ["old"]
    assert (outside / "old").read_text() == "old"


@contained
@pytest.mark.skipif(landlock.abi() < 3, reason="Landlock forbids truncation from version 3 on")
def test_truncation_outside_is_refused(tmp_path: Path, means: str) -> None:
    (tmp_path / "file").write_text("content")
    run(python(f"import os; os.truncate('{tmp_path}/file', 0)"), means=means)
    assert (tmp_path / "file").read_text() == "content"


@pytest.mark.skipif(landlock.abi() < 6, reason="Landlock forbids signals from version 6 on")
def test_processes_outside_cannot_be_signalled() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as outside:
        script = f"kill -KILL {outside.pid} || echo refused; sleep 60 & kill -KILL $! && echo own"
        done = run(script, means="landlock")
        assert done.stdout == "refused\nown\n"
        assert outside.poll() is None


@contained
def test_devices_that_are_not_named_cannot_be_written_to(means: str) -> None:
    """A device is no file of the mount's: it can be written to though the mount be read-only."""
    done = run(
        python(
            "import os\n"
            "for name in ('null', 'kmsg', 'full'):\n"
            "  try: os.close(os.open('/dev/' + name, os.O_WRONLY)); print(name)\n"
            "  except OSError: print('no', name)"
        ),
        "/dev/null",
        means=means,
    )
    assert done.stdout.splitlines()[:2] == ["null", "no kmsg"], done.stderr


@pytest.mark.skipif(not has_mounts, reason="mounts of one's own are for root")
def test_mounts_cannot_be_made_writable_again_and_nobody_else_has_them(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    before = Path("/proc/self/mountinfo").read_text()
    done = run(
        f"cd {inside} && pwd && echo x >new\n"
        f"mount -o remount,rw,bind {outside}; mount -t tmpfs none {outside}\n"
        f"umount -l {inside}; unshare -r -m sh -c 'mount -o remount,rw,bind / ; echo x >{outside}/new'\n"
        f"echo x >{outside}/new; echo through",
        str(inside),
        means="mounts",
    )
    assert done.stdout == f"{inside}\nthrough\n", done.stderr
    assert os.listdir(inside) == ["new"]
    assert os.listdir(outside) == []
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.skipif(not has_mounts, reason="mounts of one's own are for root")
def test_place_in_a_place_and_a_link_to_one_are_writable(tmp_path: Path) -> None:
    inner = tmp_path / "place" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("other")
    run(
        f"echo x >{inner}/a; echo x >{tmp_path}/place/b; echo x >{tmp_path}/link/c; echo x >{tmp_path}/d",
        str(inner),
        str(tmp_path / "place"),
        str(tmp_path / "link"),
        means="mounts",
    )
    assert sorted(path.name for path in tmp_path.rglob("?")) == ["a", "b", "c"]


def test_who_may_not_mount_is_refused_and_starts_nothing() -> None:
    words = launch.command_line([], ["mounts", "0", "/bin/sh", "-c", "echo started"])
    if has_mounts:
        words = ["setpriv", "--bounding-set=-sys_admin", *words]
    done = subprocess.run(words, capture_output=True, text=True, timeout=scaled(60))
    assert done.returncode == 125
    assert "cannot have mounts of its own: Operation not permitted" in done.stdout
    assert "started" not in done.stdout


def test_without_landlock_everything_can_be_written_to(tmp_path: Path) -> None:
    run(f"echo x >{tmp_path}/new")
    assert (tmp_path / "new").exists()


@contained
def test_place_that_does_not_exist_is_named(means: str) -> None:
    done = run("echo started", "/no/such/place", means=means)
    assert done.returncode == 125
    assert "/no/such/place" in done.stdout
    assert "started" not in done.stdout


def test_privileges_and_core_files_are_given_up() -> None:
    fields = status_fields()
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert run("ulimit -c").stdout == "0\n"
    if os.geteuid() == 0:
        dac_override = 1 << 1
        for capability_set in ("CapPrm", "CapEff", "CapBnd"):
            assert int(fields[capability_set], 16) == dac_override
        assert int(fields["CapInh"], 16) == 0


def test_group_cannot_be_left() -> None:
    code = (
        "import os\n"
        "if os.fork(): os.wait(); os._exit(0)\n"
        "for name, call in (('setsid', os.setsid), ('setpgid', lambda: os.setpgid(0, 0)),"
        " ('kill', lambda: os.kill(-1, 0))):\n"
        "  try: call(); print(name)\n"
        "  except PermissionError: print('no', name)\n"
        "os.kill(0, 0); os.kill(os.getpid(), 0); print('own')\n"
    )
    assert run(python(code)).stdout == "no setsid\nno setpgid\nno kill\nown\n"


#: Calls of a program in the kernel's place: each prints whether it is done.
ATTRIBUTES = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
path, fd = sys.argv[1], os.open(sys.argv[1], os.O_RDONLY)
def raw(*words):
    if libc.syscall(*words) < 0:
        raise OSError(ctypes.get_errno(), '')
calls = dict(
    chmod=lambda mode: os.chmod(path, mode),
    fchmod=lambda mode: os.fchmod(fd, mode),
    fchmodat=lambda mode: raw(268, -100, path.encode(), mode),
    fchmodat2=lambda mode: raw(452, -100, path.encode(), mode, 0),
    open=lambda mode: raw(2, path.encode() + b'.open', os.O_CREAT | os.O_WRONLY, mode),
    openat=lambda mode: os.close(os.open(path + '.openat', os.O_CREAT | os.O_WRONLY, mode)),
    tmpfile=lambda mode: os.close(os.open(os.path.dirname(path), os.O_TMPFILE | os.O_WRONLY, mode)),
    creat=lambda mode: raw(85, path.encode() + b'.creat', mode),
    mknod=lambda mode: raw(133, path.encode() + b'.mknod', 0o100000 | mode, 0),
    mknodat=lambda mode: os.mknod(path + '.mknodat', 0o100000 | mode),
)
changes = dict(
    utime=lambda: raw(132, path.encode(), None),
    utimes=lambda: raw(235, path.encode(), None),
    futimesat=lambda: raw(261, -100, path.encode(), None),
    utimensat=lambda: os.utime(path),
    chown=lambda: os.chown(path, -1, -1),
    fchown=lambda: os.fchown(fd, -1, -1),
    lchown=lambda: os.lchown(path, -1, -1),
    setxattr=lambda: os.setxattr(path, 'user.x', b''),
    fsetxattr=lambda: os.setxattr(fd, 'user.x', b''),
    setflags=lambda: raw(16, fd, 0x40086602, ctypes.byref(ctypes.c_long(0))),
    io_uring=lambda: raw(425, 1, ctypes.create_string_buffer(120)),
    openat2=lambda: raw(437, -100, path.encode(), ctypes.create_string_buffer(24), 24),
)
os.umask(0)
for name, call in calls.items():
    for mode in (0o4755, 0o2755, 0o640):
        try: call(mode); print(name, oct(mode))
        except OSError as error: assert error.errno in (1, 38), (name, error)
for name, call in changes.items():
    try: call(); print(name)
    except OSError as error: assert error.errno in (1, 38), (name, error)
for name in sorted(os.listdir(os.path.dirname(path))):
    assert not os.stat(os.path.join(os.path.dirname(path), name)).st_mode & 0o6000, name
"""
NEW_FILES = {"open 0o640", "openat 0o640", "tmpfile 0o640", "creat 0o640", "mknod 0o640", "mknodat 0o640"}
MODES = {"chmod 0o640", "fchmod 0o640", "fchmodat 0o640"}
TIMES_AND_OWNERS = {"utime", "utimes", "futimesat", "utimensat", "chown", "fchown", "lchown"}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter is for x86-64")
@pytest.mark.parametrize(
    ("means", "done"),
    [("none", NEW_FILES | MODES | TIMES_AND_OWNERS), ("attributes", NEW_FILES)],
    ids=["some", "none"],
)
def test_attributes_are_changed_only_where_they_may_be_and_no_program_is_made_its_owners(
    tmp_path: Path, means: str, done: set[str]
) -> None:
    (tmp_path / "code").write_text(ATTRIBUTES)
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").touch()
    result = run(f'"{sys.executable}" -I -S {tmp_path}/code {place}/file', means=means)
    # Only kernels since 6.6 have this one.
    assert set(result.stdout.splitlines()) - {"fchmodat2 0o640"} == done, result.stderr
    assert ("fchmodat2 0o640" in result.stdout) <= (means == "none")
    assert result.stderr == ""


@pytest.mark.skipif(not (has_mounts and landlock.abi()), reason="for root, with Landlock")
def test_mounts_and_landlock_together_keep_attributes_of_what_is_not_named(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir(mode=0o755)
    script = f"chmod 700 {inside}; chmod 700 {outside}; touch {inside}/new {outside}/new; head -c1 /dev/zero"
    done = run(script, str(inside), means="landlock,mounts")
    assert done.stdout == "\0"
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (inside, outside)] == [0o700, 0o755]
    assert [os.listdir(folder) for folder in (inside, outside)] == [["new"], []]


def test_starting_process_that_is_gone_starts_nothing() -> None:
    done = run("echo started", parent=1 if os.getpid() != 1 else 2)
    assert done.returncode == 125
    assert done.stdout == "umlab: cannot start the guest: the starting process is gone\n"


def test_missing_kernel_is_named() -> None:
    command = [
        sys.executable,
        "-I",
        "-S",
        launch.__file__,
        str(os.getpid()),
        "-",
        "256",
        "none",
        "0",
        "/no/such/kernel",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60))
    assert done.returncode == 125
    assert "No such file" in done.stdout


def test_parent_death_signal_does_not_reach_the_kernel() -> None:
    # prctl(PR_GET_PDEATHSIG): a guest whose main process alone is killed would be set free.
    code = (
        "import ctypes; n = ctypes.c_int(-1);"
        "ctypes.CDLL(None).prctl(2, ctypes.byref(n), 0, 0, 0); print(n.value)"
    )
    assert run(python(code)).stdout == "0\n"


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_files_become_3_and_on_in_their_order_and_no_other_is_left(count: int) -> None:
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(count)]
    # The last one first, so that numbers have to be exchanged.
    files = [writer for _, writer in reversed(pipes)]
    code = (
        "import os\n"
        # One more while it is listed.
        "print(len(os.listdir('/proc/self/fd')) - 1)\n"
        f"for number in range({count}): os.write(number + 3, b'%d' % number)"
    )
    command = launch.command_line(files, ["none", "0", sys.executable, "-I", "-S", "-c", code])
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=scaled(60), pass_fds=files, start_new_session=True
    )
    for _, writer in pipes:
        os.close(writer)
    received = []
    for reader, _ in reversed(pipes):
        received.append(os.read(reader, 10))
        os.close(reader)
    assert done.stdout == f"{count + 3}\n"
    assert received == [b"%d" % number for number in range(count)]


def test_files_that_have_the_first_numbers_already_stay_apart() -> None:
    """As in a process that has closed all else."""
    code = (
        "import os, sys\n"
        "sys.path.append(sys.argv[1])\n"
        "from umlab.guest import launch\n"
        "os.closerange(3, 64)\n"
        "pairs = [os.pipe(), os.pipe()]\n"
        "assert [fd for pair in pairs for fd in pair] == [3, 4, 5, 6]\n"
        "launch._renumber([4, 3])\n"
        "os.write(3, b'through'); print(os.read(4, 20).decode())\n"
    )
    source = os.path.dirname(os.path.dirname(os.path.dirname(launch.__file__)))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, source], capture_output=True, text=True, timeout=scaled(60)
    )
    assert done.stdout == "through\n", done.stderr


def test_descriptor_limit_is_the_one_that_is_given_and_can_be_raised_again() -> None:
    assert run("ulimit -Sn; ulimit -n 512 && ulimit -Sn").stdout == "256\n512\n"


def test_few_descriptors_are_enough() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    command = launch.command_line([writer], ["none", "0", "/bin/sh", "-c", "echo through >&3"])
    limited = ["sh", "-c", 'ulimit -n 32; exec "$@"', "sh", *command]
    subprocess.run(limited, pass_fds=[writer], timeout=scaled(60), check=True)
    os.close(writer)
    assert os.read(reader, 10) == b"through\n"
    os.close(reader)
