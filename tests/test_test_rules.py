"""The rules of tests/conftest.py, each seen at work in a small test run of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


class Run:
    """A project with our conftest, support code and pytest settings, but tests of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(
            HERE / "support", root / "tests/support", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(HERE / "conftest.py", root / "tests")
        shutil.copy(HERE.parent / "pyproject.toml", root)
        (root / "tools").mkdir()
        (root / "tools/packages").write_text("test  made-up-tools  no_such_tool,cat  only for this test\n")

    def __call__(self, code: str, *, require: str = "", integration: bool = True) -> tuple[int, str]:
        mark = "pytestmark = pytest.mark.integration\n" if integration else ""
        path = self.root / "tests/integration/test_it.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"import os, subprocess, sys, threading\nimport pytest\n{mark}{code}")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"],
            cwd=self.root,
            env=os.environ | {"UMLAB_REQUIRE": require, "UMLAB_TEST_TIMEOUT_FACTOR": "0.1"},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


SKIPS = """
def test_call():
    pytest.skip("no peer: call")

@pytest.mark.skip(reason="no peer: mark")
def test_mark():
    pass

@pytest.fixture
def peer():
    pytest.skip("no peer: fixture")

def test_fixture(peer):
    pass
"""
MODULE_SKIP = 'pytest.skip("no peer: module", allow_module_level=True)\n'


def test_skips_stay_skips_on_a_users_machine(run: Run) -> None:
    status, output = run(SKIPS)
    assert status == 0
    assert "3 skipped" in output


def test_skipped_integration_test_fails_where_all_is_required(run: Run) -> None:
    status, output = run(SKIPS, require="all")
    assert status == 1
    assert "1 failed, 2 errors" in output
    for how in ("call", "mark", "fixture"):
        assert f"must not be skipped under UMLAB_REQUIRE=all: Skipped: no peer: {how}" in output


def test_skipped_integration_module_fails_where_all_is_required(run: Run) -> None:
    status, output = run(MODULE_SKIP, require="all")
    assert status == 2
    assert "must not be skipped under UMLAB_REQUIRE=all: Skipped: no peer: module" in output


def test_skipped_unit_test_stays_skipped(run: Run) -> None:
    status, output = run(SKIPS, require="all", integration=False)
    assert status == 0
    assert "3 skipped" in output


def test_expected_failure_stays_expected(run: Run) -> None:
    code = "@pytest.mark.xfail(strict=True)\ndef test_it():\n    raise ValueError\n"
    status, output = run(code, require="all")
    assert status == 0
    assert "1 xfailed" in output


def test_missing_program_names_its_package(run: Run) -> None:
    code = (
        "from support.require import require_program\ndef test_it():\n    require_program('no_such_tool')\n"
    )
    status, output = run(code)
    assert "1 skipped" in output
    assert "no_such_tool is missing: apt-get install made-up-tools" in output

    status, output = run(code, require="all")
    assert status == 1
    assert "1 failed" in output


def test_program_is_never_the_one_beside_the_interpreter(run: Run) -> None:
    code = """
from pathlib import Path
from support.require import require_program

def test_it(tmp_path, monkeypatch):
    for name in ("python", "cat"):
        (tmp_path / name).write_text("#!/bin/sh")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert require_program("cat") in (Path("/usr/bin/cat"), Path("/bin/cat"))
"""
    assert run(code)[0] == 0


def test_program_that_no_package_list_names_is_refused(run: Run) -> None:
    code = "from support.require import require_program\ndef test_it():\n    require_program('sh')\n"
    status, output = run(code)
    assert status == 1
    assert "sh is not in tools/packages" in output


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(("kinds", "status"), [("py", 1), ("py native", 0)])
def test_scenarios_are_counted_and_none_on_native_fails_where_all_is_required(
    run: Run, kinds: str, status: int, workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", f"-n {workers}")
    code = f"""
@pytest.mark.parametrize("kind", {kinds.split()} * 3)
def test_it(kind, count_scenario):
    count_scenario(kind)
"""
    done, output = run(code, require="all", integration=False)
    assert done == status
    assert ", ".join(f"{kind}: 3" for kind in sorted(kinds.split())) in output
    assert ("no scenario ran on the native engine" in output) == bool(status)


def test_privilege_decides_which_tests_are_left_out(run: Run) -> None:
    code = """
@pytest.mark.needs_root
def test_root():
    assert os.geteuid() == 0

@pytest.mark.needs_plain_user
def test_plain_user():
    assert os.geteuid() != 0
"""
    status, output = run(code, require="all")
    assert status == 0
    assert "1 passed, 1 deselected" in output


LEAKS = """
import asyncio
left = []

def test_descriptor():
    os.dup(1)

def test_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()

def test_child():
    left.append(subprocess.Popen(["sleep", "1000"]))

def test_zombie():
    left.append(subprocess.Popen(["true"]))

def test_detached():
    subprocess.run(["setsid", "-f", "sleep", "1001"], stdout=subprocess.DEVNULL)

async def test_async():
    left.append(await asyncio.create_subprocess_exec("sleep", "1002"))
"""


def test_what_a_test_leaves_behind_fails_it(run: Run) -> None:
    status, output = run(LEAKS, integration=False)
    assert status == 1
    assert "6 passed, 6 errors" in output
    reports = output.split("ERROR at teardown of ")[1:]
    kinds = ["descriptor", "thread", "child", "zombie", "detached", "async"]
    leaks = ["descriptor ", "thread ", "sleep", "true (zombie: never waited for)", "sleep", "sleep"]
    for report, kind, leak in zip(reports, kinds, leaks, strict=True):
        assert report.startswith(f"test_{kind} ")
        assert "the test left behind:" in report
        assert leak in report


def test_tidy_tests_pass_the_leak_check(run: Run) -> None:
    code = """
import asyncio, socket

def test_plain(short_dir):
    assert len(str(short_dir / "a-socket-name-of-32-characters.ctl")) <= 107
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_dir / "s"))
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
    subprocess.run(["true"], check=True)

async def test_async():
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    await asyncio.to_thread(print)
"""
    status, output = run(code, require="all")
    assert status == 0, output
    assert "2 passed" in output
