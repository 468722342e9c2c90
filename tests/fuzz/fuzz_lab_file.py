"""Throw bytes at the reader of lab files: a lab or documented errors come out, each in a line of the file.

Run: ``python tests/fuzz/fuzz_lab_file.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["umlab", "ruamel"]):
    from umlab.errors import LabFileError, LabFileErrors
    from umlab.lab.file import LabFile, load

# A fuzzer ends without tidying up: this file goes with it.
_FILE = Path(f"/proc/self/fd/{os.memfd_create('lab')}")


def one_input(data: bytes) -> None:
    """Load one file."""
    _FILE.write_bytes(data)
    errors: tuple[LabFileError, ...] = ()
    try:
        assert isinstance(load(_FILE, runtime=Path("/run/lab")), LabFile)
    except LabFileError as error:
        errors = (error,)
    except LabFileErrors as error:
        errors = error.errors
    lines = len(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").splitlines())
    assert all(1 <= error.line <= max(1, lines) for error in errors)
    assert [error.line for error in errors] == sorted(error.line for error in errors)


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
