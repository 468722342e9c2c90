"""What a kernel says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlab.errors import LabError
from umlab.guest.kernel.answer import kernel_release


def test_release_is_what_the_kernel_says(tmp_path: Path) -> None:
    kernel = tmp_path / "linux"
    kernel.write_text("#!/bin/sh\necho 6.1.2-test\n")
    kernel.chmod(0o755)
    assert kernel_release(str(kernel)) == "6.1.2-test"


@pytest.mark.parametrize("script", ["exit 1", "echo two words", "echo"])
def test_program_without_a_release_is_no_kernel(tmp_path: Path, script: str) -> None:
    kernel = tmp_path / "linux"
    kernel.write_text(f"#!/bin/sh\n{script}\n")
    kernel.chmod(0o755)
    with pytest.raises(LabError, match="not a User Mode Linux kernel"):
        kernel_release(str(kernel))


def test_missing_kernel_is_named() -> None:
    with pytest.raises(LabError, match="/no/such/linux"):
        kernel_release("/no/such/linux")
