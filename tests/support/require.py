"""What a test needs from the machine: skipped on a user's machine, a failure where all is required.

With ``UMLAB_REQUIRE=all`` in the environment (as in CI) a missing program fails the test that needs
it, and so does every other skip of an integration test (tests/conftest.py).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "tools" / "packages"
#: Where Debian keeps programs that a plain user's PATH leaves out.
SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def everything_is_required() -> bool:
    """Say whether a missing peer program is a failure here."""
    return os.environ.get("UMLAB_REQUIRE") == "all"


def unavailable(reason: str) -> NoReturn:
    """End the running test: this machine cannot do what it needs.

    Args:
        reason: What is missing, and what would bring it.

    Raises:
        pytest.skip.Exception: On a user's machine.
        pytest.fail.Exception: Where everything is required.
    """
    if everything_is_required():
        pytest.fail(f"{reason} (required here: UMLAB_REQUIRE=all)", pytrace=False)
    pytest.skip(reason)


def require_program(name: str) -> Path:
    """Return the path of a system program, never of one that umlab itself installs.

    Args:
        name: A program of tools/packages, such as ``uml_switch`` for the C original.

    Raises:
        LookupError: tools/packages does not list it, so nobody would install it.
        pytest.skip.Exception, pytest.fail.Exception: As `unavailable` does, when it is missing.
    """
    package = _package_of(name)
    own = Path(sys.executable).parent
    places = [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if place]
    search = [place for place in (*places, *SYSTEM_PATH) if Path(place) != own]
    found = shutil.which(name, path=os.pathsep.join(search))
    if found is None:
        unavailable(f"{name} is missing: apt-get install {package}")
    return Path(found)


def _package_of(program: str) -> str:
    for line in PACKAGES.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            _, package, programs, _ = line.split(maxsplit=3)
            if program in programs.split(","):
                return package
    raise LookupError(f"{program} is not in tools/packages, so a fresh machine would not have it")
