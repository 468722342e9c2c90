"""The manual pages: everything of the help is in them, and groff and man take them without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from support.require import ROOT, require_program
from umlab.cli.app import app
from umlab.compat import uml_mkcow, uml_moo
from umlab.compat._mconsole_shell import LOCAL_HELP
from umlab.compat.uml_switch import usage

PAGES = ("umlab", "uml_switch", "uml_mconsole", "uml_mkcow", "uml_moo")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with the pages."""
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "tools/man", directory], check=True)
    return directory


def read(pages: Path, name: str) -> str:
    """Return a page as a reader sees it, on lines so long that no word is divided."""
    environment = {**os.environ, "MANWIDTH": "2000", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""}
    command = [require_program("man"), "--warnings", "-l", pages / f"{name}.1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    return done.stdout


def plain(text: str) -> str:
    """Return a text with one space between words and none of click's and Markdown's marks."""
    return " ".join(text.replace("\b", "").replace("`", "").split())


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield a command and every one below it that the help shows, each with its full name."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from commands(below, f"{path} {name}")


def test_there_is_a_page_for_every_program(pages: Path) -> None:
    assert sorted(path.name for path in pages.iterdir()) == sorted(f"{name}.1" for name in PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_groff_and_man_have_no_complaint(pages: Path, name: str) -> None:
    command = [require_program("groff"), "-man", "-Tutf8", "-ww", "-z", pages / f"{name}.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    text = read(pages, name)
    assert re.search(rf"^NAME\n +{name} - [a-z]", text, re.MULTILINE)
    assert re.search(r"^SEE ALSO\n", text, re.MULTILINE)


def test_every_command_argument_and_option_of_umlab_is_there_with_its_help(pages: Path) -> None:
    text = read(pages, "umlab")
    # What follows a command's heading, up to the next one.
    headings = re.split(r"^ {1,4}(umlab [^\n]+)\n", text, flags=re.MULTILINE)
    sections = dict(zip(headings[1::2], headings[2::2], strict=True)) | {"umlab": headings[0]}
    found = list(commands(typer.main.get_command(app), "umlab"))
    assert len(found) == len(sections) > 3
    for path, command in found:
        (section,) = (body for title, body in sections.items() if re.sub(r" [A-Z[].*", "", title) == path)
        assert plain(command.help.split("\n\n")[0]) in plain(section)
        for each in command.params:
            if each.hidden or ("--help" in each.opts and path != "umlab"):
                continue
            if each.param_type_name == "option":
                for option in (*each.opts, *each.secondary_opts):
                    assert re.search(rf"^ +(.*[ /,])?{option}(?![\w-])", section, re.MULTILINE), (
                        path,
                        option,
                    )
            assert plain(each.help or "") in plain(section), (path, each.name)


def test_every_option_of_uml_switch_is_there(pages: Path) -> None:
    text = read(pages, "uml_switch")
    for option in {*re.findall(r"(?<= )-[a-z0-9-]+", usage("uml_switch")), "-daemon"}:
        assert re.search(rf"^ {{7}}{option}( |$)", text, re.MULTILINE), option


@pytest.mark.parametrize("usage", [uml_mkcow.usage, uml_moo.usage], ids=["uml_mkcow", "uml_moo"])
def test_every_option_of_the_cow_programs_is_there(pages: Path, usage: Callable[[str], str]) -> None:
    name = usage.__module__.rpartition(".")[2]
    options = set(re.findall(r"(?<=[ \[])-[a-z]\b", usage(name)))
    assert options
    text = read(pages, name)
    for option in options:
        assert re.search(rf"^ {{7}}{option}( |$)", text, re.MULTILINE), option


def test_every_command_of_uml_mconsole_is_there(pages: Path) -> None:
    text = read(pages, "uml_mconsole")
    entries = re.findall(r"^ {7}(\S.*)", text, re.MULTILINE)
    listed = {term.split()[0] for entry in entries for term in re.split(r", ", entry.split("  ")[0])}
    table = re.findall(r"^\| (.+?) \|", (ROOT / "docs/reference/uml_mconsole.md").read_text(), re.MULTILINE)
    own = re.findall(r"^    ([a-z-]+)", LOCAL_HELP.decode(), re.MULTILINE)
    kernel = {word for cell in table for word in re.findall(r"`([a-z-]+)", cell)}
    assert {"version", "config"} <= kernel
    assert {"quit", "switch", "int", *own, *kernel} <= listed
