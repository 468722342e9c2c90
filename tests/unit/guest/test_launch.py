"""What the launcher takes away, seen from a program in the place of the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import scaled
from umlab.guest import landlock, launch, mounts
from umlab.guest.containment import Means

has_mounts = os.geteuid() == 0 and mounts.is_possible()
BY_LANDLOCK = pytest.param(
    "landlock", marks=pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")
)
BY_MOUNTS = pytest.param(
    "mounts", marks=pytest.mark.skipif(not has_mounts, reason="mounts of one's own are for root")
)
contained = pytest.mark.parametrize("means", [BY_LANDLOCK, BY_MOUNTS])


def run(
    script: str, *writable: str, means: Means = "none", parent: int | None = None
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
def test_only_the_named_places_can_be_written_to(tmp_path: Path, means: Means) -> None:
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
def test_truncation_outside_is_refused(tmp_path: Path, means: Means) -> None:
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
def test_devices_that_are_not_named_cannot_be_written_to(means: Means) -> None:
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
def test_place_that_does_not_exist_is_named(means: Means) -> None:
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
