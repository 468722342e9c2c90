"""``umlab doctor`` on this machine, and on machines that are really sick."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled
from support.require import require_program, unavailable
from umlab.guest import mounts

pytestmark = pytest.mark.integration

DOCTOR = [sys.executable, "-c", "import typer; from umlab.cli.doctor import doctor; typer.run(doctor)"]
#: Installs a seccomp filter that refuses one system call, and goes on as the program named after it.
#: The arguments: the call's number, the value of its first argument (or -1 for any), the errno.
_WITHOUT_CALL = """
import ctypes, os, struct, sys

number, first, error = map(int, sys.argv[1:4])
if first < 0:
    checks = [(0x20, 0, 0, 0), (0x15, 0, 1, number)]
else:
    checks = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16), (0x15, 0, 1, first)]
program = [*checks, (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("=HBBI", *line) for line in program)

class Fprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

libc = ctypes.CDLL(None, use_errno=True)
zero = ctypes.c_ulong(0)
assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0
assert libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(Fprog(len(program), code)), zero, zero) == 0
os.execv(sys.argv[4], sys.argv[4:])
"""
_EPERM, _ENOSYS = 1, 38
_PTRACE, _PRCTL, _LANDLOCK_CREATE_RULESET = 101, 157, 444
_MOUNT_SETATTR = 442
_PR_SET_SECCOMP = 22


@pytest.fixture
def environment(short_dir: Path) -> dict[str, str]:
    """Every directory that doctor looks into is the test's own."""
    for name in ("run", "state", "memory"):
        (short_dir / name).mkdir(mode=0o700)
    return os.environ | {
        "XDG_RUNTIME_DIR": str(short_dir / "run"),
        "XDG_STATE_HOME": str(short_dir / "state"),
        "TMPDIR": str(short_dir / "memory"),
    }


def examine(
    environment: dict[str, str], *options: str, before: tuple[str, ...] = ()
) -> dict[str, dict[str, str]]:
    """Run doctor and return its findings by name; its status and its verdict must agree."""
    kernel = () if "--kernel" in options else ("--kernel", debian_kernel())
    done = subprocess.run(
        [*before, *DOCTOR, "--json", *kernel, *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    fails = any(each["status"] == "fail" for each in result["findings"])
    assert (done.returncode, result["ok"]) == ((1, False) if fails else (0, True))
    for each in result["findings"]:
        assert bool(each["fix"]) is (each["status"] != "ok"), each
    return {each["name"]: each for each in result["findings"]}


def failures(findings: dict[str, dict[str, str]]) -> set[str]:
    return {name for name, each in findings.items() if each["status"] == "fail"}


def unshare() -> tuple[str, ...]:
    """Return the command that makes a program root of a user namespace of its own, with its own mounts."""
    command = ("unshare", "--user", "--map-root-user", "--mount")
    if subprocess.run([*command, "true"], check=False).returncode != 0:
        unavailable("user namespaces are off: sysctl -w user.max_user_namespaces=1000")
    return command


def test_this_machine_is_well_and_nothing_is_left(short_dir: Path, environment: dict[str, str]) -> None:
    require_program("busybox")
    findings = examine(environment)
    assert failures(findings) == set()
    assert len(findings) == 15
    assert findings["ptrace"]["status"] == "ok"
    assert "daemon" in findings["transports"]["detail"]
    assert "modules in /usr/lib/uml/modules/" in findings["modules"]["detail"]
    assert [each for each in short_dir.rglob("*") if each.parent != short_dir] == []


def test_table_has_a_mark_on_each_line_the_fixes_and_a_verdict(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*DOCTOR, "--kernel", "/nonexistent/linux"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=scaled(30),
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].split() == ["FAIL", "kernel", "there", "is", "no", "file", "/nonexistent/linux"]
    assert lines[1].strip().startswith("fix: install the package user-mode-linux")
    assert {line.split()[0] for line in lines[:-1]} <= {"OK", "WARN", "FAIL", "fix:"}
    assert lines[-1] == "not everything runs here: see what is marked FAIL"


def test_memory_files_on_a_noexec_file_system(environment: dict[str, str]) -> None:
    script = 'mount -t tmpfs -o noexec,size=1g,mode=1777 none "$TMPDIR" && exec "$@"'
    findings = examine(environment, before=(*unshare(), "sh", "-c", script, "sh"))
    assert failures(findings) == {"executable-memory"}
    assert f"mount -o remount,exec {environment['TMPDIR']};" in findings["executable-memory"]["fix"]


def test_memory_files_on_a_full_file_system(environment: dict[str, str]) -> None:
    script = (
        'mount -t tmpfs -o size=64k,mode=1777 none "$TMPDIR" && '
        '{ cat /dev/zero >"$TMPDIR/full" 2>/dev/null || true; } && exec "$@"'
    )
    findings = examine(environment, before=(*unshare(), "sh", "-c", script, "sh"))
    assert failures(findings) == {"executable-memory", "memory"}
    assert "No space left on device" in findings["executable-memory"]["detail"]
    assert "room for about 0 guests" in findings["memory"]["detail"]


@pytest.mark.needs_plain_user
def test_places_that_may_not_be_written_to(short_dir: Path, environment: dict[str, str]) -> None:
    for name in ("run", "state", "memory"):
        (short_dir / name).chmod(0o500)
    findings = examine(environment)
    assert failures(findings) == {"executable-memory", "runtime-directory", "state-directory"}


@pytest.mark.parametrize(("limit", "status"), [(70, "warn"), (64, "fail")])
def test_few_descriptors(environment: dict[str, str], limit: int, status: str) -> None:
    code = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit})); os.execv(sys.argv[1], sys.argv[1:])"
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= limit
    findings = examine(environment, before=(sys.executable, "-c", code))
    assert findings["descriptors"]["status"] == status
    assert f"at most {limit} descriptors" in findings["descriptors"]["detail"]


def without_call(number: int, first: int, error: int) -> tuple[str, ...]:
    return (sys.executable, "-c", _WITHOUT_CALL, str(number), str(first), str(error))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86-64")
class TestRefusedCall:
    """As a container's profile refuses it."""

    def test_ptrace(self, environment: dict[str, str]) -> None:
        findings = examine(environment, before=without_call(_PTRACE, -1, _EPERM))
        assert failures(findings) == {"ptrace"}
        assert "SYS_PTRACE" in findings["ptrace"]["fix"]

    @pytest.mark.parametrize("request_number", [31, 0x4200], ids=["SYSEMU", "SETOPTIONS"])
    def test_one_request_of_ptrace(self, environment: dict[str, str], request_number: int) -> None:
        findings = examine(environment, before=without_call(_PTRACE, request_number, _EPERM))
        assert failures(findings) == {"ptrace"}
        assert f"{request_number:#x}" in findings["ptrace"]["detail"]

    def test_filters(self, environment: dict[str, str]) -> None:
        findings = examine(environment, before=without_call(_PRCTL, _PR_SET_SECCOMP, _EPERM))
        assert "seccomp" in failures(findings)
        assert "Operation not permitted" in findings["seccomp"]["detail"]

    def test_landlock(self, environment: dict[str, str]) -> None:
        without = without_call(_LANDLOCK_CREATE_RULESET, -1, _ENOSYS)
        if os.geteuid() == 0 and mounts.is_possible():
            findings = examine(environment, before=without)
            assert findings["landlock"]["status"] == "ok"
            assert "mounts of their own" in findings["landlock"]["detail"]
        findings = examine(environment, before=(*without, *without_call(_MOUNT_SETATTR, -1, _ENOSYS)))
        expected = "fail" if os.geteuid() == 0 else "warn"
        assert findings["landlock"]["status"] == expected
        assert "lsm=" in findings["landlock"]["fix"]


def kernel(directory: Path, script: str, mode: int = 0o755) -> str:
    path = directory / "linux"
    path.write_text(script)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nsleep 1000\n", "it does not end"),
        ("#!/bin/sh\necho 6.1.0; exit 1\n", "6.1.0"),
        ("#!/bin/sh\necho hello\n", "hello"),
        ("#!/bin/sh\nprintf '6.1\\033[2J\\n'\n", "6.1?[2J"),
        ("not a program", "cannot be executed: Exec format error"),
    ],
)
def test_kernel_that_is_none(short_dir: Path, environment: dict[str, str], script: str, words: str) -> None:
    begin = time.monotonic()
    findings = examine(environment, "--kernel", kernel(short_dir, script))
    assert time.monotonic() - begin < scaled(3)
    assert failures(findings) == {"kernel"}
    assert words in findings["kernel"]["detail"]
    assert not {"transports", "modules"} & findings.keys()


def test_kernel_that_is_another_program(environment: dict[str, str]) -> None:
    findings = examine(environment, "--kernel", "/bin/true")
    assert failures(findings) == {"kernel"}
    assert "not a User Mode Linux kernel" in findings["kernel"]["detail"]


def test_kernel_that_may_not_be_executed(short_dir: Path, environment: dict[str, str]) -> None:
    findings = examine(environment, "--kernel", kernel(short_dir, "#!/bin/sh\n", 0o644))
    assert failures(findings) == {"kernel"}
    assert findings["kernel"]["fix"] == f"chmod +x {short_dir}/linux"


def test_kernel_of_another_release_has_no_modules(short_dir: Path, environment: dict[str, str]) -> None:
    script = f'#!/bin/sh\n[ "$1" = --version ] && echo 5.0.1-mine || exec {debian_kernel()} "$@"\n'
    findings = examine(environment, "--kernel", kernel(short_dir, script))
    assert failures(findings) == set()
    assert findings["modules"]["status"] == "warn"
    assert "5.0.1-mine" in findings["modules"]["detail"]


def test_busybox_that_is_missing(short_dir: Path, environment: dict[str, str]) -> None:
    """Another program of that name comes first in the path."""
    (short_dir / "bin").mkdir()
    (short_dir / "bin/busybox").symlink_to("/bin/sh")
    environment["PATH"] = f"{short_dir}/bin:{environment['PATH']}"
    findings = examine(environment)
    assert failures(findings) == {"busybox"}
    assert "busybox-static" in findings["busybox"]["fix"]


def test_engine_that_does_not_exist(environment: dict[str, str]) -> None:
    findings = examine(environment | {"UMLAB_ENGINE": "fast"})
    assert failures(findings) == {"engine"}
