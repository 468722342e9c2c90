"""The lab file's page: its examples are read as it says, and no key is missing."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from support.require import ROOT
from umlab.errors import LabFileError, LabFileErrors
from umlab.lab.document import MAX_DEPTH, MAX_EVENTS, MAX_SIZE
from umlab.lab.file import MAX_ERRORS, load
from umlab.lab.port import Mirror, Port
from umlab.lab.schema import Disk, Guest, Nic, Segment

PAGE = (ROOT / "docs/reference/lab-file.md").read_text()
#: Each YAML block, with the errors that the page shows for it.
EXAMPLES = re.findall(r"```yaml\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", PAGE, re.DOTALL)
#: The default of each key, as it stands in the page's tables.
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
RUNTIME = Path("/run/lab")


def test_examples_are_found() -> None:
    assert [bool(errors) for _, errors in EXAMPLES] == [False, False, False, True, True]


@pytest.mark.parametrize(("text", "errors"), EXAMPLES)
def test_example_is_read_as_the_page_says(
    text: str, errors: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(text)
    told = ""
    try:
        load("lab.yaml", runtime=RUNTIME)
    except (LabFileError, LabFileErrors) as error:
        told = f"{error}\n"
    assert told == errors


@pytest.mark.parametrize("schema", [Segment, Port, Mirror, Guest, Disk, Nic])
def test_every_key_has_its_row(schema: Any) -> None:
    assert {field.name for field in dataclasses.fields(schema)} <= ROWS.keys()


def test_defaults_of_the_page_change_nothing_where_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(schema: Any) -> str:
        # A default that is no code, such as "random at each boot", is no value.
        names = (field.name for field in dataclasses.fields(schema))
        return ", ".join(f"{name}: {ROWS[name].strip('`')}" for name in names if ROWS[name].startswith("`"))

    segment, guest, nic = written(Segment), written(Guest), written(Nic)
    assert [part.count(": ") for part in (segment, guest, nic)] == [9, 8, 1]
    monkeypatch.chdir(tmp_path)
    labs = []
    for text in (
        f"segments: {{a: {{{segment}}}}}\nguests: {{b: {{{guest}}}, c: {{nics: [{{segment: a, {nic}}}]}}}}",
        "segments: {a: }\nguests: {b: , c: {nics: [a]}}",
    ):
        Path("lab.yaml").write_text(text)
        labs.append(load("lab.yaml", runtime=RUNTIME))
    assert labs[0] == labs[1]


def test_limits_are_those_of_the_code() -> None:
    for words in (
        f"{MAX_SIZE >> 10} KiB",
        f"{MAX_EVENTS} keys and values",
        f"{MAX_DEPTH} levels",
        f"up to {MAX_ERRORS} errors",
    ):
        assert words in PAGE
