"""The page on transports has each one that there is, written as it is."""

from __future__ import annotations

import re

from support.require import ROOT
from umlab.transports.registry import TRANSPORTS

PAGE = (ROOT / "docs/reference/transports.md").read_text()


def test_every_transport_has_its_row_and_every_row_its_transport() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\S+)` \| (?:`(\S+)`)? ?\|", PAGE, re.MULTILINE)
    assert rows == [(each.kind, each.form, each.default.format("SEGMENT")) for each in TRANSPORTS.values()]


def test_every_row_says_everything() -> None:
    (head,) = re.findall(r"^\| Kind .*", PAGE, re.MULTILINE)
    for kind in TRANSPORTS:
        (row,) = re.findall(rf"^\| `{kind}` \|.*", PAGE, re.MULTILINE)
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == head.count("|") - 1
        # A place may have no name by itself.
        assert all(cells[:2] + cells[3:])
