"""Where this machine's apt gets its packages: its files of sources, in both of their forms.

Source: sources.list(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

APT_DIRECTORY = "/etc/apt"
#: A line such as ``deb [signed-by=/usr/share/keyrings/x.gpg] http://mirror/debian bookworm main``.
_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)\s*(?:#.*)?")


@dataclass(frozen=True, slots=True)
class AptSource:
    """One suite of one archive of binary packages.

    Attributes:
        uri: Where the archive is.
        suite: Such as ``bookworm-updates``.
        components: Such as ``main``; none where the suite is a directory.
        signed_by: The file of keys that it is signed with, where one is named.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None = None

    @property
    def line(self) -> str:
        """It as one line of a sources.list."""
        option = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {option}{self.uri} {self.suite} {' '.join(self.components)}"


def read_sources(directory: str = APT_DIRECTORY) -> list[AptSource]:
    """Return this machine's sources; files that cannot be read are left out."""
    root = Path(directory)
    found: list[AptSource] = []
    for path in [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        if path.suffix == ".list":
            found += parse_list(text)
        elif path.suffix == ".sources":
            found += parse_deb822(text)
    return found


def parse_list(text: str) -> Iterator[AptSource]:
    """Yield the sources of a file in the form of one line each; what is not understood is left out."""
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match:
            options = dict(word.partition("=")[::2] for word in (match[1] or "").split())
            components = tuple(match[4].split())
            yield AptSource(match[2], match[3], components, _key_file(options.get("signed-by", "")))


def parse_deb822(text: str) -> Iterator[AptSource]:
    """Yield the sources of a file of stanzas; what is not understood is left out."""
    for fields in _stanzas(text.splitlines()):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield AptSource(uri, suite, components, _key_file(fields.get("signed-by", "")))


def _stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    last = ""
    for line in [*lines, ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0].isspace():
            fields[last] = f"{fields.get(last, '')}\n{line.strip()}"
        else:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            fields[last] = value.strip()


def _key_file(value: str) -> str | None:
    """Return a file of keys; keys may stand there themselves, or their fingerprints."""
    return value if value.startswith("/") and len(value.split()) == 1 else None


def sources_of(suite: str, codename: str, sources: Iterable[AptSource]) -> list[AptSource]:
    """Return where the packages of a suite come from, with its updates.

    Args:
        suite: The suite, such as ``bookworm``.
        codename: This machine's own one.
        sources: This machine's sources.  One that has another suite is taken to have this one as well.
    """
    own = [each for each in sources if "main" in each.components]
    names = (suite, f"{suite}-updates", f"{suite}-security")
    found = [each for each in own if each.suite in names]
    if any(each.suite == suite for each in found):
        return found
    return [AptSource(each.uri, suite, ("main",), each.signed_by) for each in own if each.suite == codename][
        :1
    ]
