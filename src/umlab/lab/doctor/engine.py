"""Which engine moves the frames."""

from __future__ import annotations

from umlab.engine.select import create_engine
from umlab.errors import SwitchError
from umlab.lab.doctor.finding import Status, Subject, Verdict
from umlab.switch.model import SwitchConfig


def check_engine(_subject: Subject) -> Verdict:
    """Choose an engine as every switch does."""
    try:
        engine = create_engine(SwitchConfig())
    except SwitchError as error:
        return Verdict(Status.FAIL, f"no switch can start: {error}", "unset UMLAB_ENGINE")
    note = "" if engine.kind == "native" else "; this version has no native one"
    return Verdict(Status.OK, f"switches run on the engine {engine.kind}{note}")
