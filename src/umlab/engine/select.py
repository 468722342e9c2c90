"""The one place where an engine is chosen.

Each engine is imported when it is wanted: a switch pays for its own only, a program without one for none.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from umlab._clock import Clock
from umlab.engine.contract import Engine
from umlab.errors import SwitchError
from umlab.switch.model import SwitchConfig

#: ``auto`` (the default: native where it can be had), ``native`` or ``py``.
ENGINE_VARIABLE = "UMLAB_ENGINE"
#: What brings the native engine where it is missing.
NATIVE_FIX = (
    "install a C compiler and Python's headers (Debian: build-essential python3-dev), then umlab once more"
)

EngineMaker = Callable[[SwitchConfig, Clock | None], Engine]

_NATIVE, _PYTHON = "umlab.engine._native.engine", "umlab.engine._py"
#: Why the installation has no native engine, in one line; setup.py writes it.
_UNBUILT = Path(__file__).with_name("_native") / "unbuilt.txt"

_logger = logging.getLogger(__name__)


def create_engine(config: SwitchConfig, clock: Clock | None = None) -> Engine:
    """Make the best engine that there is, or the one that the environment's ``UMLAB_ENGINE`` asks for.

    Args:
        config: What the switch is told to be.
        clock: Where the time comes from; the machine's clock unless given.

    Raises:
        SwitchError: The engine that is asked for does not exist or cannot be had.
    """
    return _choose(os.environ.get(ENGINE_VARIABLE) or "auto")(config, clock)


def why_not_native() -> str:
    """Return in one line why the native engine cannot be had; empty where it can."""
    try:
        native_engine()
    # Modules of different builds fail in more ways than by ImportError.
    except Exception as error:
        return _UNBUILT.read_text().strip() if _UNBUILT.exists() else str(error)
    return ""


def native_engine() -> EngineMaker:
    """Return the native engine; raises whatever its import raises."""
    return cast(EngineMaker, importlib.import_module(_NATIVE).NativeEngine)


def python_engine() -> EngineMaker:
    """Return the engine in plain Python."""
    return cast(EngineMaker, importlib.import_module(_PYTHON).PyEngine)


@functools.cache
def _choose(wanted: str) -> EngineMaker:
    """Return the engine that is asked for; says once per process which one that is, and why."""
    if wanted not in ("auto", "native", "py"):
        raise SwitchError(f"{ENGINE_VARIABLE} must be auto, native or py, not {wanted!r}")
    missing = "" if wanted == "py" else why_not_native()
    if missing and wanted == "native":
        raise SwitchError(f"there is no native engine here: {missing}; {NATIVE_FIX}")
    kind = "py" if wanted == "py" or missing else "native"
    _logger.info(
        "engine %s (%s)", kind, f"no native one: {missing}" if missing else f"{ENGINE_VARIABLE}={wanted}"
    )
    return python_engine() if kind == "py" else native_engine()
