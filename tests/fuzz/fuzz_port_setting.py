"""Throw forms and text at the settings of ports and mirror sessions: a setting or a ``ValueError`` comes out.

Run: ``python tests/fuzz/fuzz_port_setting.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

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


_PORT_KEYS = ("access", "trunk", "native", "pvid", "tagged", "untagged", "tpid", "reserved", "?")
_MIRROR_KEYS = ("name", "destination", "ports", "vlans", "ingress", "egress", "?")


def _form(data: atheris.FuzzedDataProvider, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return a form with some of the keys, and what may stand behind them or may not."""
    return {key: _value(data) for key in keys if data.ConsumeBool()}


def _value(data: atheris.FuzzedDataProvider) -> Any:
    text = data.ConsumeUnicodeNoSurrogates(8)
    number = data.ConsumeIntInRange(-1, 70_000)
    words = ("ctag", "stag", "bridge", "peer", "10,20-29", f"{number}", f"{number}-{number + 2}", text)
    values = (None, True, False, number, number & 0xFFF, text, [number, number + 1], [text], {}, *words)
    return data.PickValueInList(list(values))


def one_input(data: bytes) -> None:
    """Read texts and forms, and what was understood once more as it is written."""
    source = atheris.FuzzedDataProvider(data)
    text = source.ConsumeUnicodeNoSurrogates(16)
    with contextlib.suppress(ValueError):
        vids = VidSet.parse(text)
        assert VidSet.parse(str(vids)) == vids
    with contextlib.suppress(ValueError):
        assert port_bits(text) > 0
    port_form, mirror_form = _form(source, _PORT_KEYS), _form(source, _MIRROR_KEYS)
    with contextlib.suppress(ValueError):
        port = port_from_form(port_form)
        assert port_from_form(port_to_form(port)) == port
    with contextlib.suppress(ValueError):
        session = mirror_from_form(mirror_form)
        assert mirror_from_form(mirror_to_form(session)) == session
    with contextlib.suppress(RequestError):
        SWITCH_PATCH.parse(json.dumps({"ports": {text: port_form}, "mirrors": {text: mirror_form}}).encode())


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
