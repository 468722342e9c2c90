"""The choice of an engine."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from umlab._clock import ManualClock
from umlab.engine import select
from umlab.engine._py import PyEngine
from umlab.engine.select import create_engine
from umlab.errors import SwitchError
from umlab.switch.model import SwitchConfig

NATIVE = "umlab.engine._native.engine"


class FakeNative(PyEngine):
    """Stands for the native engine."""

    kind = "native"


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.delenv("UMLAB_ENGINE", raising=False)
    monkeypatch.setattr(select, "_UNBUILT", tmp_path / "unbuilt.txt")
    select._choose.cache_clear()
    yield
    select._choose.cache_clear()


@pytest.fixture
def with_native(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType(NATIVE)
    module.NativeEngine = FakeNative
    monkeypatch.setitem(sys.modules, NATIVE, module)


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NATIVE, None)


@pytest.mark.usefixtures("with_native")
@pytest.mark.parametrize(
    ("wanted", "kind"),
    [(None, "native"), ("", "native"), ("auto", "native"), ("native", "native"), ("py", "py")],
)
def test_native_engine_is_made_wherever_it_may_and_that_is_said_once(
    wanted: str | None, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if wanted is not None:
        monkeypatch.setenv("UMLAB_ENGINE", wanted)
    config = SwitchConfig(hub=True)
    with caplog.at_level(logging.INFO):
        engines = [create_engine(config, ManualClock(5)) for _ in range(3)]
    for engine in engines:
        assert engine.kind == kind
        assert engine.config is config
        assert engine.snapshot().at_ns == 5
    assert caplog.messages == [f"engine {kind} (UMLAB_ENGINE={wanted or 'auto'})"]


@pytest.mark.usefixtures("without_native")
def test_python_engine_takes_the_place_of_a_missing_one_and_says_why(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "unbuilt.txt").write_text("the C compiler cc is missing\n")
    with caplog.at_level(logging.INFO):
        assert create_engine(SwitchConfig()).kind == create_engine(SwitchConfig()).kind == "py"
    # The drop-in prints warnings, and its output is the original's.
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.INFO, "engine py (no native one: the C compiler cc is missing)")
    ]


@pytest.mark.usefixtures("without_native")
@pytest.mark.parametrize(("note", "reason"), [(None, NATIVE), ("no headers", "no headers")])
def test_missing_engine_that_is_asked_for_is_refused_with_reason_and_fix(
    note: str | None, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UMLAB_ENGINE", "native")
    if note is not None:
        (tmp_path / "unbuilt.txt").write_text(note)
    with pytest.raises(SwitchError) as caught:
        create_engine(SwitchConfig())
    assert reason in str(caught.value)
    assert select.NATIVE_FIX in str(caught.value)


def test_modules_that_do_not_fit_together_are_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> ModuleType:
        raise ValueError(f"{name} has the wrong size")

    monkeypatch.setattr("importlib.import_module", fail)
    assert select.why_not_native() == f"{NATIVE} has the wrong size"


def test_engine_that_does_not_exist_is_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMLAB_ENGINE", "Py")
    with pytest.raises(SwitchError, match="'Py'"):
        create_engine(SwitchConfig())


@pytest.mark.parametrize(
    "code",
    [
        "import umlab.daemon.switch",
        "from umlab.engine.select import python_engine; python_engine()",
        "from umlab.cli.app import app",
    ],
)
def test_native_engine_is_loaded_by_those_who_run_it_only(code: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print([n for n in sys.modules if '_native' in n])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "[]\n"
