"""Throw JSON and text at the settings of ports and mirror sessions: a setting or a ``ValueError`` comes out.

Run: ``python tests/fuzz/fuzz_port_setting.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import contextlib
import json
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.api.body import SWITCH_PATCH
    from umlab.api.error import RequestError
    from umlab.daemon.port_setting import (
        mirror_from_form,
        mirror_to_form,
        port_bits,
        port_from_form,
        port_to_form,
    )
    from umlab.switch.vlan import VidSet


def one_input(data: bytes) -> None:
    """Read one text as each of them, and what was understood once more as it is written."""
    text = data.decode(errors="replace")
    with contextlib.suppress(ValueError):
        vids = VidSet.parse(text)
        assert VidSet.parse(str(vids)) == vids
    with contextlib.suppress(ValueError):
        assert port_bits(text) > 0
    with contextlib.suppress(RequestError):
        SWITCH_PATCH.parse(data)
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        with contextlib.suppress(ValueError):
            port = port_from_form(value)
            assert port_from_form(port_to_form(port)) == port
        with contextlib.suppress(ValueError):
            session = mirror_from_form(value)
            assert mirror_from_form(mirror_to_form(session)) == session


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
