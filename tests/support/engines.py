"""The engines that every behaviour test runs on: the native one whenever it is there."""

from __future__ import annotations

from support.require import everything_is_required
from umlab.engine.select import EngineMaker, native_engine, python_engine, why_not_native

#: Why tests run on the Python engine only; empty where they do not.
WHY_NOT_NATIVE = why_not_native()
if WHY_NOT_NATIVE and everything_is_required():
    raise RuntimeError(f"the native engine is required here (UMLAB_REQUIRE=all): {WHY_NOT_NATIVE}")

#: By name; each takes a configuration and a clock.
ENGINES: dict[str, EngineMaker] = {"py": python_engine()}
if not WHY_NOT_NATIVE:
    ENGINES["native"] = native_engine()
