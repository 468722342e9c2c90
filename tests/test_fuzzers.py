"""Every fuzzer runs: what it reads is there, and each seed is as it demands.

Atheris, which is not there where tests run, has a stand-in that takes the seeds and does not fuzz.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.deadline import scaled

FUZZERS = Path(__file__).parent / "fuzz"
_ATHERIS = """\
import contextlib, pathlib

def instrument_imports(include=()):
    return contextlib.nullcontext()

def Setup(argv, one_input):
    for seed in argv[1:]:
        one_input(pathlib.Path(seed).read_bytes())

def Fuzz():
    pass

class FuzzedDataProvider:
    pass
"""
#: What makes numbers and texts of its input needs the real engine for that.
_RUN = """\
import pathlib, runpy, sys

seeds = sys.argv[2:]
for fuzzer in sorted(pathlib.Path(sys.argv[1]).glob("fuzz_*.py")):
    print(fuzzer, flush=True)
    sys.argv = [str(fuzzer), *(seeds if "FuzzedDataProvider(" not in fuzzer.read_text() else [])]
    runpy.run_path(str(fuzzer), run_name="__main__")
"""


def test_every_fuzzer_takes_every_seed(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text(_ATHERIS)
    seeds = sorted(map(str, (FUZZERS / "seeds").iterdir()))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{_RUN}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(FUZZERS), *seeds],
        capture_output=True,
        text=True,
        timeout=scaled(100),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(list(FUZZERS.glob("fuzz_*.py"))) > 20
