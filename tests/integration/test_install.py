"""The package is installed from its sources, with a C compiler and without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.require import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

ENGINE = (
    "from umlab.engine.select import create_engine\n"
    "from umlab.switch.model import SwitchConfig\n"
    "engine = create_engine(SwitchConfig())\n"
    "print(engine.kind, type(engine).__module__)\n"
)
UMLAB = "from umlab.cli.main import main; main()"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what a source archive is made of, without anything that was built in place."""
    place = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    left_out = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__", "unbuilt.txt")
    shutil.copytree(ROOT / "src", place / "src", ignore=left_out)
    return place


def install(what: Path, target: Path, **environment: str) -> None:
    """Install without a network, and without the packages that are there already."""
    words = ["install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--disable-pip-version-check", str(what)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run(target: Path, code: str, *words: str, engine: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=target,
        env=os.environ | {"PYTHONPATH": str(target), "UMLAB_ENGINE": engine},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def without_compiler(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the sources where the compiler fails; the translation to C, which is made before, is not."""
    target = tmp_path_factory.mktemp("installed")
    cache = ROOT / "build/cython"
    if cache.exists():
        shutil.copytree(cache, sources / "build/cython")
    install(sources, target, CC="/bin/false")
    return target


def test_without_a_compiler_switches_run_on_the_python_engine(without_compiler: Path) -> None:
    assert not list(without_compiler.rglob("*.so"))
    assert run(without_compiler, ENGINE, engine="auto").stdout == "py umlab.engine._py\n"


def test_without_a_compiler_the_native_engine_is_refused_with_reason_and_fix(without_compiler: Path) -> None:
    done = run(without_compiler, ENGINE, engine="native")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "there is no native engine here: the C compiler /bin/false fails" in last
    assert "build-essential python3-dev" in last


def test_without_a_compiler_doctor_warns_and_names_the_fix(without_compiler: Path) -> None:
    shown = json.loads(run(without_compiler, UMLAB, "doctor", "--json", engine="auto").stdout)
    (finding,) = [each for each in shown["findings"] if each["name"] == "engine"]
    assert finding["status"] == "warn"
    assert finding["detail"].endswith("engine py, which is slower: the C compiler /bin/false fails")
    assert "build-essential python3-dev" in finding["fix"]


def test_source_archive_installs_with_the_native_engine(sources: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path], cwd=sources, check=True)
    (archive,) = tmp_path.glob("umlab-*.tar.gz")
    target = tmp_path / "installed"
    install(archive, target)
    assert run(target, ENGINE, engine="auto").stdout == "native umlab.engine._native.engine\n"
    native = target / "umlab/engine/_native"
    wanted = ROOT / "src/umlab/engine/_native"
    built = {path.name.partition(".")[0] for path in native.glob("*.so")}
    assert built == {path.stem for path in wanted.glob("*.pyx")}
    # Others can cimport it.
    assert {path.name for path in native.glob("*.pxd")} == {path.name for path in wanted.glob("*.pxd")}
    assert sum(path.stat().st_size for path in native.glob("*.so")) < 2 << 20
