"""umlab.guest.inside.script: what a shell is told, and what it says when that cannot be done."""

import shutil
import subprocess
from pathlib import Path

import pytest

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
        ("nosuch", 127, "umlab: nosuch: not found\n"),
        ("-x", 127, "umlab: -x: not found\n"),
        ("no 'such' %s\\n", 127, "umlab: no 'such' %s\\n: not found\n"),
        ("/nosuch/it", 127, "umlab: /nosuch/it: not found\n"),
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


def _run(shell: list[str], script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(shell, input=script, capture_output=True, text=True, check=False)
