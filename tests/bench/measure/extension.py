"""Builds the benchmarks' own Cython modules when they are first needed, into ``build/bench``."""

from __future__ import annotations

import fcntl
import importlib.machinery
import importlib.util
import sysconfig
from pathlib import Path
from types import ModuleType

from .machine import ROOT
from .report import OUTPUT

NATIVE = ROOT / "src/umlab/engine/_native"
BENCH = Path(__file__).resolve().parents[1]


def load(name: str) -> ModuleType:
    """Import ``tests/bench/<name>.pyx``, after building it if it has changed since.

    Raises:
        SystemExit: There is no Cython or no C compiler; the text says what to install.
    """
    source = BENCH / f"{name}.pyx"
    target = OUTPUT / (name + sysconfig.get_config_var("EXT_SUFFIX"))
    if not _is_fresh(target, source):
        OUTPUT.mkdir(parents=True, exist_ok=True)
        with open(OUTPUT / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_fresh(target, source):
                _build(name, source)
    loader = importlib.machinery.ExtensionFileLoader(name, str(target))
    spec = importlib.util.spec_from_file_location(name, target, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _is_fresh(target: Path, source: Path) -> bool:
    """Tell whether nothing has changed since, the engine's structures included."""
    made_of = (source, *NATIVE.glob("*.pxd"))
    return target.exists() and target.stat().st_mtime >= max(each.stat().st_mtime for each in made_of)


def _build(name: str, source: Path) -> None:
    try:
        from Cython.Build import cythonize
    except ImportError:
        raise SystemExit("the benchmarks need Cython: tools/setup bench, or pip install cython") from None
    from setuptools import Distribution, Extension
    from setuptools.errors import CompileError

    extension = Extension(name, [str(source)], extra_compile_args=["-O3"])
    (module,) = cythonize(
        [extension], build_dir=str(OUTPUT / "c"), include_path=[str(ROOT / "src")], quiet=True
    )
    command = Distribution({"ext_modules": [module]}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(OUTPUT), str(OUTPUT / "o")
    command.force = True
    command.ensure_finalized()
    try:
        command.run()
    except CompileError:
        raise SystemExit(
            "the benchmarks need a C compiler and Python's headers: apt-get install gcc python3-dev"
        ) from None
