"""The one place where an engine is chosen."""

from __future__ import annotations

import logging
import os

from umlab._clock import Clock
from umlab.engine._py import PyEngine
from umlab.engine.contract import Engine
from umlab.errors import SwitchError
from umlab.switch.model import SwitchConfig

#: ``auto`` (the default), ``native`` or ``py``.
ENGINE_VARIABLE = "UMLAB_ENGINE"

_logger = logging.getLogger(__name__)


def create_engine(config: SwitchConfig, clock: Clock | None = None) -> Engine:
    """Make the best engine that there is, or the one that the environment's ``UMLAB_ENGINE`` asks for.

    Args:
        config: What the switch is told to be.
        clock: Where the time comes from; the machine's clock unless given.

    Raises:
        SwitchError: The engine that is asked for does not exist.
    """
    wanted = os.environ.get(ENGINE_VARIABLE) or "auto"
    if wanted == "native":
        raise SwitchError("the native engine is not built yet; set UMLAB_ENGINE to auto or py")
    if wanted not in ("auto", "py"):
        raise SwitchError(f"UMLAB_ENGINE must be auto, native or py, not {wanted!r}")
    engine = PyEngine(config, clock)
    _logger.info("engine %s (asked for: %s)", engine.kind, wanted)
    return engine
