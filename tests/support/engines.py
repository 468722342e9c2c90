"""The engines that every behaviour test runs on."""

from __future__ import annotations

from collections.abc import Callable

from umlab._clock import Clock
from umlab.engine._py import PyEngine
from umlab.engine.contract import Engine
from umlab.switch.model import SwitchConfig

#: By name; each takes a configuration and a clock.
ENGINES: dict[str, Callable[[SwitchConfig, Clock | None], Engine]] = {"py": PyEngine}
