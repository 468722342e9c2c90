"""Which engine moves the frames."""

from __future__ import annotations

import os

from umlab.engine.select import ENGINE_VARIABLE, NATIVE_FIX, create_engine, why_not_native
from umlab.errors import SwitchError
from umlab.lab.doctor.finding import Status, Subject, Verdict
from umlab.switch.model import SwitchConfig


def check_engine(_subject: Subject) -> Verdict:
    """Choose an engine as every switch does."""
    try:
        engine = create_engine(SwitchConfig())
    except SwitchError as error:
        return Verdict(Status.FAIL, f"no switch can start: {error}", f"unset {ENGINE_VARIABLE}")
    detail = f"switches run on the engine {engine.kind}"
    if engine.kind == "native" or os.environ.get(ENGINE_VARIABLE) == engine.kind:
        return Verdict(Status.OK, detail)
    return Verdict(Status.WARN, f"{detail}, which is slower: {why_not_native()}", NATIVE_FIX)
