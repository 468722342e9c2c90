"""Every command of the README and of the tutorials does what the document says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.console_blocks import run_document
from support.require import ROOT

#: Tutorials are run from first to last; a how-to is run where it has commands that stand by themselves.
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorial").glob("*.md")),
    *(path for path in sorted((ROOT / "docs/howto").glob("*.md")) if "```console" in path.read_text()),
]
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.integration
@pytest.mark.any_user
@pytest.mark.timeout(600)
@pytest.mark.parametrize("document", DOCUMENTS, ids=_relative)
def test_document_commands_run_as_written(document: Path, short_dir: Path) -> None:
    assert run_document(document.read_text(), short_dir) > 0


@pytest.mark.parametrize(
    "document", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=_relative
)
def test_document_has_a_title_and_links_to_what_exists(document: Path) -> None:
    text = document.read_text()
    assert text.startswith("# ")
    missing = [link for link in LINK.findall(text) if not (document.parent / link).exists()]
    assert missing == []


def test_decisions_have_the_numbers_of_their_files_and_of_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    numbers = []
    for path in sorted((ROOT / "docs/adr").glob("*.md")):
        numbers.append(int(path.name[:4]))
        assert path.read_text().startswith(f"# {numbers[-1]}. ")
        assert re.search(rf"^{numbers[-1]}\. \[.*\]\(adr/{re.escape(path.name)}\)$", index, re.MULTILINE), (
            path
        )
    assert len(set(numbers)) == len(numbers) > 10


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    listed = {(ROOT / "docs" / link).resolve() for link in LINK.findall(index)}
    documents = set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/README.md"}
    assert documents - listed == set()
