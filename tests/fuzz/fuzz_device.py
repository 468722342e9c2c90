"""Throw text at devices of guests: a name or a setting comes out, or `LabError` says why not.

Run: ``python tests/fuzz/fuzz_device.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import LabError
    from umlab.guest.device import parse_device, parse_setting, request, serialize_setting


def one_input(data: bytes) -> None:
    """Read a name and a setting, and what was understood once more as it is written."""
    source = atheris.FuzzedDataProvider(data)
    known = ("eth1", "vec1", "ubdb", "con2", "ssl1", "mem", source.ConsumeUnicode(8))
    with contextlib.suppress(LabError):
        name, letters = parse_device(source.PickValueInList(list(known)))
        setting = parse_setting(name, source.ConsumeUnicode(600), letters)
        assert parse_setting(name, serialize_setting(setting)) == setting
        assert len(request(name, setting).encode()) <= 511


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
