"""The choice of an engine."""

from __future__ import annotations

import logging

import pytest

from umlab._clock import ManualClock
from umlab.engine.select import create_engine
from umlab.errors import SwitchError
from umlab.switch.model import SwitchConfig


@pytest.mark.parametrize("wanted", [None, "", "auto", "py"])
def test_python_engine_is_made_and_logged_once(
    wanted: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("UMLAB_ENGINE", raising=False)
    if wanted is not None:
        monkeypatch.setenv("UMLAB_ENGINE", wanted)
    config = SwitchConfig(hub=True)
    with caplog.at_level(logging.INFO):
        engine = create_engine(config, ManualClock(5))
    assert engine.kind == "py"
    assert engine.config is config
    assert engine.snapshot().at_ns == 5
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("wanted", "reason"), [("native", "not built"), ("Py", "'Py'")])
def test_engine_that_does_not_exist_is_refused_and_named(
    wanted: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMLAB_ENGINE", wanted)
    with pytest.raises(SwitchError, match=reason):
        create_engine(SwitchConfig())
