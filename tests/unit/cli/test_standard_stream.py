"""Our standard streams in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_BESIDE = """
import os, sys
from umlab.cli.standard_stream import prepare_standard_streams
prepare_standard_streams()
print("ours", end="")
os.write(1, b"beside ")
"""


@pytest.mark.parametrize(("unbuffered", "output"), [("", b"beside ours"), ("1", b"oursbeside ")])
def test_nothing_is_buffered_where_python_is_told_so(unbuffered: str, output: bytes) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([sys.executable, "-c", _BESIDE], env=environment, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (output, b"")
