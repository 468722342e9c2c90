"""Apt's sources: both forms, and which of them have a suite."""

from __future__ import annotations

from pathlib import Path

from umlab.guest.disk.apt_source import AptSource, parse_deb822, parse_list, read_sources, sources_of

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEB822 = f"""\
# The archive.
Types: deb deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYS}

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xyz

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main
"""
LIST = """\
# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://packages.example/apt tools-bookworm main # ours
deb-src http://deb.example/debian bookworm main
deb http://deb.example/debian bookworm main non-free
nonsense
"""


def test_stanzas_are_read() -> None:
    main = ("main", "contrib")
    assert list(parse_deb822(DEB822)) == [
        AptSource("http://deb.debian.org/debian", "bookworm", main, KEYS),
        AptSource("http://deb.debian.org/debian", "bookworm-updates", main, KEYS),
        AptSource("http://security.example/debian-security", "bookworm-security", ("main",)),
    ]


def test_lines_are_read_and_written() -> None:
    found = list(parse_list(LIST))
    assert found == [
        AptSource("https://packages.example/apt", "tools-bookworm", ("main",), "/k.gpg"),
        AptSource("http://deb.example/debian", "bookworm", ("main", "non-free")),
    ]
    assert [each.line for each in found] == [
        "deb [signed-by=/k.gpg] https://packages.example/apt tools-bookworm main",
        "deb http://deb.example/debian bookworm main non-free",
    ]


def test_sources_of_a_machine_are_those_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(LIST)
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/debian.sources.save").write_text(DEB822)
    (tmp_path / "sources.list.d/folder.list").mkdir()
    assert read_sources(str(tmp_path)) == [*parse_list(LIST), *parse_deb822(DEB822)]
    assert read_sources(str(tmp_path / "nowhere")) == []


def test_a_suite_comes_with_its_updates_and_nothing_else() -> None:
    sources = [*parse_list(LIST), *parse_deb822(DEB822)]
    suites = [each.suite for each in sources_of("bookworm", "bookworm", sources)]
    assert suites == ["bookworm", "bookworm", "bookworm-updates", "bookworm-security"]


def test_another_suite_is_taken_from_the_archive_of_ones_own() -> None:
    found = sources_of("trixie", "bookworm", parse_deb822(DEB822))
    assert found == [AptSource("http://deb.debian.org/debian", "trixie", ("main",), KEYS)]
    assert sources_of("trixie", "sid", parse_deb822(DEB822)) == []
