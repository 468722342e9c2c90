"""Typed lines on their way to a guest."""

from __future__ import annotations

import pytest

from umlab.mconsole.line import absolute_disks, log_pieces, log_requests


@pytest.mark.parametrize(
    ("text", "requests"),
    [
        (b"", [b"log \n"]),
        (b"a", [b"log a", b"log \n"]),
        (b"a\n", [b"log a\n"]),
        (b"x" * 507, [b"log " + b"x" * 506, b"log x", b"log \n"]),
    ],
)
def test_text_is_cut_and_its_last_line_ended(text: bytes, requests: list[bytes]) -> None:
    assert list(log_requests(log_pieces(text))) == requests
    assert max(map(len, requests)) <= 511


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (b"config ubda=cow,disk", b"config ubda=/d/cow,/d/disk"),
        (b"config \t ubd3r=cow,disk,serial", b"config \t ubd3r=/d/cow,/d/disk,serial"),
        (b"config ubda=,disk", b"config ubda=,/d/disk"),
        (b"config ubda", b"config ubda"),
        (b"config eth0=ubd", b"config eth0=ubd"),
        (b"configubda=disk", b"configubda=disk"),
        (b"proc ubda=disk", b"proc ubda=disk"),
    ],
)
def test_disks_alone_get_absolute_names(line: bytes, sent: bytes) -> None:
    assert absolute_disks(line, lambda name: b"/d/" + name) == sent
