"""tools/setup on machines that lack something, played by stand-ins for apt, dpkg, sudo and Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.require import ROOT

REAL_PROGRAMS = ("sh", "dirname", "cat", "cksum", "env", "mkdir", "cp", "cmp")
STAND_INS = {
    "id": 'echo "$UID_NUMBER"',
    "sudo": '[ "$SUDO" = works ] || exit 1\nshift\n"$@"',
    "dpkg-query": """
        shift 2
        for package; do
            case " $(cat state/installed) " in *" $package "*) printf '/%s installed/' "$package" ;; esac
        done""",
    "apt-cache": 'case " $(cat state/known) " in *" $2 "*) ;; *) exit 100 ;; esac',
    "apt-get": """
        for word; do
            case "$word" in
                update) cat state/archive >state/known ;;
                install) cmp -s state/archive state/known || exit 100; printf ' %s' "$@" >>state/installed ;;
            esac
        done""",
    "python3": """
        case "$*" in
            *"< (3, 11)"*) [ "$VERSION" != 3.9 ] ;;
            *print*) echo "$VERSION" ;;
            *"import ensurepip"*) [ "$ENSUREPIP" = yes ] ;;
            *"-m venv"*) mkdir -p .venv/bin && cp bin/python3 .venv/bin/python ;;
            *Python.h*) [ "$HEADERS" = yes ] ;;
            *"pip install"*-e*|*build_ext*) [ "$COMPILER" = works ] || exit 0; echo >state/native ;;
            *_native.engine*) [ -e state/native ] ;;
        esac""",
}
ALL = "python3-venv user-mode-linux busybox-static"
NATIVE = "gcc python3-dev"


class Machine:
    """A tree with the real tools/setup, on a machine of stand-ins that log how they are called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            "PATH": str(root / "bin"),
            "UID_NUMBER": "1000",
            "SUDO": "fails",
            "VERSION": "3.11",
            "ENSUREPIP": "yes",
            "HEADERS": "no",
            "COMPILER": "works",
        }
        for directory in ("bin", "tools", "state"):
            (root / directory).mkdir()
        for name in REAL_PROGRAMS:
            (root / "bin" / name).symlink_to(shutil.which(name) or name)
        for name, script in STAND_INS.items():
            program = root / "bin" / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >>state/log\n{script}\n')
            program.chmod(0o755)
        shutil.copy(ROOT / "tools/setup", root / "tools")
        # It is there already.
        shutil.copy(ROOT / "tools/qemu-kernel", root / "tools")
        (root / "build/qemu-kernel").mkdir(parents=True)
        (root / "tools/packages").write_text(
            "# set package programs why\n"
            "venv python3-venv - x\ndemo user-mode-linux linux.uml x\ndemo busybox-static busybox x\n"
            "test lsof lsof x\nkernel flex - x\nbench iperf3 - x\n"
            "native gcc cc x\nnative python3-dev - x\n"
        )
        (root / "pyproject.toml").write_text("[project]")
        (root / "constraints.txt").write_text("rich==1")
        (root / "setup.py").write_text("setup()")
        native = root / "src/umlab/engine/_native"
        native.mkdir(parents=True)
        for name in ("engine.pyx", "engine.pxd"):
            (native / name).touch()
        self.installed(ALL)
        self.known_to_apt(f"{ALL} {NATIVE} lsof flex")

    def set(self, name: str, words: str) -> None:
        (self.root / "state" / name).write_text(words)

    def known_to_apt(self, packages: str, after_update: str | None = None) -> None:
        self.set("known", packages)
        self.set("archive", packages if after_update is None else after_update)

    def installed(self, packages: str, native: str = NATIVE) -> None:
        self.set("installed", f"{packages} {native}")

    def setup(self, goal: str, **environment: str) -> tuple[int, str, list[str]]:
        """Run tools/setup and return its status, its error output, and what it called."""
        log = self.root / "state/log"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [self.root / "tools/setup", goal],
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
        )
        calls = log.read_text().splitlines() if log.exists() else []
        return done.returncode, done.stderr, calls


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def _of(calls: list[str], *names: str) -> list[str]:
    return [call for call in calls if call.split()[0] in names]


def test_plain_user_with_all_packages_needs_neither_root_nor_sudo(machine: Machine) -> None:
    status, errors, calls = machine.setup("demo")
    assert (status, errors) == (0, "")
    assert _of(calls, "sudo", "apt-get", "apt-cache") == []
    assert any("-m venv" in call for call in calls)
    pip = [call for call in calls if "pip install" in call]
    assert [call.split("constraints.txt ")[1] for call in pip] == [
        "setuptools Cython",
        "--no-build-isolation -e .",
    ]


def test_second_run_sets_nothing_up(machine: Machine) -> None:
    assert machine.setup("test", UID_NUMBER="0")[0] == 0
    for goal in ("test", "demo", "lint"):
        status, errors, calls = machine.setup(goal)
        assert (status, errors) == (0, "")
        assert _of(calls, "python3", "sudo", "apt-get", "apt-cache") == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_changed_versions_are_installed_again(machine: Machine, changed: str) -> None:
    machine.setup("demo")
    (machine.root / changed).write_text("changed")
    status, _, calls = machine.setup("demo")
    assert status == 0
    assert any("pip install" in call for call in calls)
    assert not any("-m venv" in call for call in calls)


def test_venv_of_the_demo_does_not_serve_the_tests(machine: Machine) -> None:
    machine.installed(ALL + " lsof")
    machine.setup("demo")
    _, _, calls = machine.setup("test")
    assert any("-e .[dev]" in call for call in calls)


def test_failed_pip_leaves_the_set_up_undone(machine: Machine) -> None:
    python = machine.root / "bin/python3"
    python.write_text(python.read_text() + '\ncase "$*" in *-e*) exit 1;; esac')
    for _ in range(2):
        status, errors, _ = machine.setup("demo")
        assert status == 1
        assert "umlab: pip failed" in errors


def test_no_root_and_no_sudo_says_in_one_line_what_to_install(machine: Machine) -> None:
    machine.installed("python3-venv user-mode-linux-doc busybox-static")
    status, errors, calls = machine.setup("test")
    assert status == 1
    (line,) = errors.splitlines()
    assert line.endswith(": sudo apt-get install user-mode-linux lsof")
    assert _of(calls, "apt-get") == []


def test_no_sudo_program_says_the_same(machine: Machine) -> None:
    machine.installed("")
    (machine.root / "bin/sudo").unlink()
    status, errors, _ = machine.setup("demo", ENSUREPIP="no")
    assert status == 1
    (line,) = errors.splitlines()
    assert line.endswith(f": sudo apt-get install {ALL}")


@pytest.mark.parametrize(("uid", "through_sudo"), [("0", False), ("1000", True)])
def test_packages_come_through_apt(machine: Machine, uid: str, through_sudo: bool) -> None:
    machine.installed("python3-venv busybox-static")
    status, _, calls = machine.setup("demo", UID_NUMBER=uid, SUDO="works")
    assert status == 0
    (install,) = _of(calls, "apt-get")
    assert install.endswith("install --no-install-recommends user-mode-linux")
    assert bool(_of(calls, "sudo")) is through_sudo


def test_lists_are_updated_only_where_a_package_is_unknown(machine: Machine) -> None:
    machine.installed("python3-venv")
    machine.known_to_apt("user-mode-linux", after_update=ALL)
    status, _, calls = machine.setup("demo", UID_NUMBER="0")
    assert status == 0
    assert [call.split()[5:] for call in _of(calls, "apt-get")] == [
        ["update"],
        ["install", "--no-install-recommends", "user-mode-linux", "busybox-static"],
    ]


def test_lists_that_are_too_old_are_updated(machine: Machine) -> None:
    machine.installed("python3-venv busybox-static")
    machine.known_to_apt(ALL, after_update=ALL + " newer")
    status, _, calls = machine.setup("demo", UID_NUMBER="0")
    assert status == 0
    assert [call.split()[5] for call in _of(calls, "apt-get")] == ["install", "update", "install"]


def test_package_that_cannot_be_installed_stops_the_set_up(machine: Machine) -> None:
    machine.installed("python3-venv busybox-static")
    (machine.root / "bin/apt-get").write_text("#!/bin/sh\nexit 100\n")
    status, errors, calls = machine.setup("demo", UID_NUMBER="0")
    assert status == 1
    assert "umlab: apt-get could not install user-mode-linux" in errors
    assert not any("-m venv" in call for call in calls)


def test_package_that_the_release_lacks_is_named(machine: Machine) -> None:
    machine.installed("python3-venv")
    machine.known_to_apt("", after_update="busybox-static")
    status, errors, calls = machine.setup("demo", UID_NUMBER="0")
    assert status == 1
    assert "apt has no package user-mode-linux for this release" in errors
    assert not any("install" in call for call in _of(calls, "apt-get"))


def test_interpreter_from_elsewhere_needs_no_venv_package(machine: Machine) -> None:
    machine.installed("user-mode-linux busybox-static")
    assert machine.setup("demo")[0] == 0


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {"VERSION": "3.9"},
            "Python 3.11 or newer is needed, and 'python3' is 3.9; name another: make PYTHON=...",
        ),
        ({"PYTHON": "python9"}, "Python 3.11 or newer is needed, and 'python9' does not run"),
    ],
)
def test_interpreter_that_does_not_serve_is_named(
    machine: Machine, environment: dict[str, str], words: str
) -> None:
    status, errors, calls = machine.setup("demo", **environment)
    assert status == 1
    assert errors.startswith(f"umlab: {words}")
    assert len(errors.splitlines()) == 1
    assert _of(calls, "apt-get", "sudo") == []


def test_unknown_goal_is_refused(machine: Machine) -> None:
    status, errors, _ = machine.setup("everything")
    assert status == 1
    assert "usage: tools/setup demo|test|bench|lint|fuzz|kernel" in errors


def test_kernel_needs_what_builds_it_and_any_venv(machine: Machine) -> None:
    status, _, calls = machine.setup("kernel", UID_NUMBER="0")
    assert status == 0
    assert _of(calls, "apt-get")[0].endswith("flex")
    assert any("-m venv" in call for call in calls)
    assert _of(machine.setup("kernel")[2], "python3") == []


@pytest.mark.parametrize("changed", ["src/umlab/engine/_native/engine.pyx", "setup.py"])
def test_changed_native_source_is_built_and_nothing_else_is_done(machine: Machine, changed: str) -> None:
    machine.setup("demo")
    (machine.root / changed).write_text("changed")
    status, _, calls = machine.setup("demo")
    assert status == 0
    assert [call for call in calls if "build_ext" in call]
    assert not [call for call in calls if "pip install" in call]
    assert _of(machine.setup("demo")[2], "python3") == []


def test_demo_does_without_a_compiler_and_says_what_brings_it(machine: Machine) -> None:
    machine.installed(ALL, native="")
    status, errors, calls = machine.setup("demo", COMPILER="fails")
    assert status == 0
    assert [line for line in errors.splitlines() if line.endswith("sudo apt-get install gcc python3-dev")]
    assert "the Python engine will do" in errors
    assert [call for call in calls if "pip install" in call]


def test_demo_as_root_installs_the_compiler_where_it_can(machine: Machine) -> None:
    machine.installed(ALL, native="")
    assert machine.setup("demo", UID_NUMBER="0")[:2] == (0, "")
    machine.installed(ALL, native="")
    (machine.root / "setup.py").write_text("changed")
    (machine.root / "bin/apt-get").write_text("#!/bin/sh\nexit 100\n")
    status, errors, _ = machine.setup("demo", UID_NUMBER="0")
    assert status == 0
    assert "the Python engine will do" in errors


def test_tests_do_not_do_without_a_compiler(machine: Machine) -> None:
    machine.installed(ALL + " lsof", native="python3-dev")
    status, errors, _ = machine.setup("test")
    assert status == 1
    assert errors.endswith("sudo apt-get install gcc\n")


def test_native_engine_that_cannot_be_built_is_tried_again(machine: Machine) -> None:
    machine.installed(ALL + " lsof")
    for _ in range(2):
        status, errors, calls = machine.setup("demo", COMPILER="fails")
        assert (status, errors.count("\n")) == (0, 1)
        assert "the native engine cannot be built" in errors
        assert [call for call in calls if "build_ext" in call]
    assert machine.setup("test", COMPILER="fails")[0] == 1
    assert machine.setup("demo")[:2] == (0, "")


def test_interpreter_from_elsewhere_has_headers_of_its_own(machine: Machine) -> None:
    machine.installed(ALL + " lsof", native="gcc")
    assert machine.setup("test", HEADERS="yes")[0] == 0
