"""umlab.guest.inside.script: what a shell is told, and what it says when that cannot be done."""

import shutil
import subprocess
from pathlib import Path

import pytest

from support.require import require_program
from umlab.guest.inside.script import command_script

_SHELLS = [
    shell for shell in (["dash"], ["bash", "--posix"], ["/bin/busybox", "sh"]) if shutil.which(shell[0])
]


@pytest.fixture(params=_SHELLS, ids=lambda shell: shell[-1])
def shell(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = request.param
    return words


@pytest.mark.parametrize(
    ("program", "status", "says"),
    [
        ("nosuch", 127, "umlab: nosuch: no such command in the guest\n"),
        ("-x", 127, "umlab: -x: no such command in the guest\n"),
        ("no 'such' %s\\n", 127, "umlab: no 'such' %s\\n: no such command in the guest\n"),
        ("cd", 127, "umlab: cd: no such command in the guest\n"),
        (":", 127, "umlab: :: no such command in the guest\n"),
        ("if", 127, "umlab: if: no such command in the guest\n"),
        ("/nosuch/it", 127, "umlab: /nosuch/it: no such command in the guest\n"),
        ("/", 126, "umlab: /: is a directory\n"),
        ("/etc/passwd", 126, "umlab: /etc/passwd: permission denied\n"),
        ("true", 0, ""),
        ("/bin/true", 0, ""),
    ],
)
def test_program_that_cannot_be_run_is_named(shell: list[str], program: str, status: int, says: str) -> None:
    done = _run(shell, command_script([program], directory="/"))
    assert (done.returncode, done.stderr) == (status, says)


def test_directory_that_is_none_is_named(shell: list[str], tmp_path: Path) -> None:
    for place in (tmp_path / "it's", Path("/etc/passwd")):
        done = _run(shell, command_script(["true"], directory=str(place)))
        assert (done.returncode, done.stderr) == (126, f"umlab: {place}: cannot change to this directory\n")


def test_program_is_looked_for_where_the_command_is_told(shell: list[str], tmp_path: Path) -> None:
    program = tmp_path / "mine"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    assert _run(shell, command_script(["mine"], environment={"PATH": str(tmp_path)})).returncode == 7
    assert _run(shell, command_script(["./mine"], directory=str(tmp_path))).returncode == 7


@pytest.mark.parametrize("line", ["#!/nosuch/sh", "#! \t/nosuch/sh -e x\t"])
def test_interpreter_that_is_not_there_is_named(
    shell: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umlab.guest.inside.script._BOX", require_program("busybox"))
    program = tmp_path / "it's"
    program.write_text(f"{line}\nexit 7\n")
    program.chmod(0o755)
    done = _run(shell, command_script([str(program)]))
    assert (done.returncode, done.stderr) == (
        127,
        f"umlab: {program}: no interpreter /nosuch/sh in the guest\n",
    )
    for whole in ("#! /bin/sh -e\nexit 7\n", "exit 7\n", "#!\nexit 7\n"):
        program.write_text(whole)
        done = _run(shell, command_script([str(program)]))
        assert (done.returncode, done.stderr) == (7, "")


def test_nothing_of_ours_is_in_the_commands_environment(shell: list[str]) -> None:
    for program in ("/usr/bin/env", "env"):
        assert "umlab_" not in _run(shell, command_script([program])).stdout


def test_program_of_a_busybox_needs_no_place(tmp_path: Path) -> None:
    busybox = str(require_program("busybox"))
    script = command_script(["uname"], environment={"PATH": str(tmp_path)})
    assert _run([busybox, "sh"], script).stdout == "Linux\n"
    done = _run([busybox, "sh"], command_script(["cd"], environment={"PATH": str(tmp_path)}))
    assert (done.returncode, done.stderr) == (127, "umlab: cd: no such command in the guest\n")


def _run(shell: list[str], script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(shell, input=script, capture_output=True, text=True, check=False)
