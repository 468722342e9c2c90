"""Throw bytes at the bodies and frames of the API: they are understood or refused, in the documented ways.

Run: ``python tests/fuzz/fuzz_api.py [libFuzzer options] [corpus]``, for example with ``-max_total_time=60``.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab.api"]):
    from umlab.api.body import BODIES, GUEST_BODY, given_fields
    from umlab.api.capture import is_stop
    from umlab.api.console import parse_resize
    from umlab.api.error import RequestError
    from umlab.api.exec import parse_control
    from umlab.errors import LabError
    from umlab.guest.cmdline import GuestSpec


def one_input(data: bytes) -> None:
    """Feed one input to everything that takes a body or a text frame."""
    for body in BODIES:
        with contextlib.suppress(RequestError, LabError):
            body.parse(data)
    with contextlib.suppress(RequestError, LabError):
        GuestSpec(umid="left", **given_fields(GUEST_BODY.parse(data)))
    with contextlib.suppress(RequestError):
        parse_resize(data.decode(errors="replace"))
    with contextlib.suppress(RequestError):
        parse_control(data.decode(errors="replace"))
    is_stop(data.decode(errors="replace"))


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
