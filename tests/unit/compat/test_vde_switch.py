"""The command line of ``vde_switch``."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from support.require import ROOT
from umlab._line_writer import LineWriter
from umlab.compat import vde_switch
from umlab.compat._vde_console import Console, Outcome
from umlab.compat._vde_getopt import OptionReader
from umlab.compat._vde_options import (
    LONG,
    SHORT,
    SYSTEM_DIRECTORY,
    USER_DIRECTORY,
    OptionError,
    Options,
    obey,
)
from umlab.compat._vde_process import StandardInput, _set_directory_mode, _StartError
from umlab.wire.vde_console import PROMPT

REFERENCE = ROOT / "docs" / "reference" / "vde_switch.md"


def read(*words: str) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Return the options, the other words, and the complaints of a command line."""
    complaints: list[str] = []
    reader = OptionReader("prog", LONG, SHORT, complaints.append)
    found = reader.read(words)
    return found, reader.words, complaints


def options(*words: str) -> Options:
    """Return what a command line without errors asks for."""
    found, others, complaints = read(*words)
    assert (others, complaints) == ([], [])
    result = Options("prog")
    obey(result, found)
    return result


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("-s", "d"), [("sock", "d")]),
        (("-sd",), [("sock", "d")]),
        (("-sock", "d"), [("sock", "d")]),
        (("--sock=d",), [("sock", "d")]),
        (("--soc", "d"), [("sock", "d")]),
        (("-hub",), [("hub", "")]),
        (("-xdn5",), [("hub", ""), ("daemon", ""), ("numports", "5")]),
        (("-s", "-x"), [("sock", "-x")]),
        (("-Mm",), [("mgmt", "m")]),
        (("--mgmt", "m"), [("mgmt", "m")]),
        (("-x", "--", "-x"), [("hub", "")]),
    ],
)
def test_options_are_read(words: tuple[str, ...], found: list[tuple[str, str]]) -> None:
    assert read(*words)[0] == found


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("--zz", "unrecognized option '--zz'"),
        ("-z", "unrecognized option '-z'"),
        ("--zz=1", "unrecognized option '--zz=1'"),
        ("-p=f", "option '-p=f' is ambiguous; possibilities: '-priority' '-pidfile'"),
        ("-xq", "invalid option -- 'q'"),
        ("--hub=1", "option '--hub' doesn't allow an argument"),
        ("--mgmt", "option '--mgmt' requires an argument"),
        ("-s", "option requires an argument -- 's'"),
        ("--mg", "option '--mg' is ambiguous; possibilities: '--mgmt' '--mgmtmode' '--mgmtgroup'"),
    ],
)
def test_error_costs_a_message(word: str, complaint: str) -> None:
    assert read(word)[2] == [f"prog: {complaint}"]


def test_other_words_may_stand_anywhere() -> None:
    assert read("one", "-x", "two", "-", "--", "-d")[:2] == ([("hub", "")], ["one", "two", "-", "-d"])


def test_everything_given_is_asked_for() -> None:
    asked = options(
        *(
            "-s",
            "d",
            "-n",
            "5",
            "-x",
            "-F",
            "-m",
            "660",
            "--dirmode",
            "2770",
            "-g",
            "staff",
            "-t",
            "a",
            "-t",
            "b",
        ),
        *("-M", "m", "--mgmtmode", "666", "--mgmtgroup", "adm", "-d", "-p", "pid", "-f", "rc"),
        *("--hashsize", "64", "--macaddr", "2:0:0:0:0:a", "--priority", "3", "-D", "1"),
    )
    assert asked == Options(
        program="prog",
        directory="d",
        ports=5,
        hub=True,
        fstp=True,
        mac=b"\2\0\0\0\0\x0a",
        hash_size=64,
        mode=0o660,
        dirmode=0o2770,
        group="staff",
        daemon=True,
        pidfile="pid",
        rcfile="rc",
        mgmt="m",
        mgmtmode=0o666,
        mgmtgroup="adm",
        taps=["a", "b"],
    )


def test_defaults() -> None:
    asked = options()
    assert asked.directory == (USER_DIRECTORY if os.geteuid() else SYSTEM_DIRECTORY)
    assert (asked.ports, asked.mode, asked.mgmtmode, asked.dirmode) == (32, 0o600, 0o600, None)
    assert asked.mac[:2] == b"\0\xff"
    assert options("--vdesock", "a", "-unix", "b").directory == "b"


@pytest.mark.parametrize(
    "words",
    [
        ("-n", "0"),
        ("-n", "x"),
        ("-n", "65537"),
        ("-m", "8"),
        ("-m", "1777"),
        ("-m", ""),
        ("--dirmode", "17777"),
        ("--hashsize", "0"),
        ("--macaddr", "2:0:0:0:0"),
        ("--macaddr", "2:0:0:0:0:100"),
        ("--priority", "-1"),
        ("-D", "many"),
    ],
)
def test_value_that_is_none_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(OptionError):
        options(*words)


@pytest.mark.parametrize(
    ("asked", "before", "after"), [(None, 0o1770, 0o2770), (0o3777, 0o700, 0o3777), (0o755, 0o700, 0o755)]
)
def test_directory_has_the_mode_of_the_original(
    tmp_path: Path, asked: int | None, before: int, after: int
) -> None:
    tmp_path.chmod(before)
    _set_directory_mode("prog", os.fspath(tmp_path), asked)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == after
    tmp_path.chmod(0o700)


def test_mode_goes_to_nothing_in_the_place_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").mkdir(0o700)
    (tmp_path / "link").symlink_to("victim")
    with pytest.raises(_StartError, match=r"prog: .*/link: Not a directory"):
        _set_directory_mode("prog", f"{tmp_path}/link", 0o777)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(_StartError, match="another directory has taken its place"):
        _set_directory_mode("prog", f"{tmp_path}/victim", 0o777)
    assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o700


async def test_prompt_waits_for_a_terminal_that_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 8192)
    os.write(writes, b"x" * 8192)
    loop = asyncio.get_running_loop()
    # Standard input, whose end is the end of the test.
    said, ended = [b"help\n", b""], loop.create_future()
    true_read = os.read
    with monkeypatch.context() as patch:
        patch.setattr(os, "isatty", lambda fd: True)
        patch.setattr(os, "read", lambda fd, size: said.pop(0) if fd == 0 else true_read(fd, size))
        console = SimpleNamespace(execute=lambda line: Outcome(b"1000 Success\n"))
        out = LineWriter(writes, loop)
        terminal = StandardInput(cast(Console, console), out, ended.set_result)
        terminal._read()
        terminal._read()
        await ended
    assert os.read(reads, 8192) == b"x" * 8192
    out.close()
    assert os.read(reads, 8192) == b"1000 Success\n" + PROMPT
    os.close(reads)
    os.close(writes)


def test_usage_names_every_option(capfd: pytest.CaptureFixture[str]) -> None:
    assert vde_switch.main(["dir/prog", "--help"]) == 1
    text = capfd.readouterr().out
    assert text.startswith("Usage: prog [OPTIONS]\n")
    for name in LONG.keys() - {"mod"}:
        assert f"--{name}" in text
    for letter in SHORT:
        assert f"-{letter}" in text


def test_every_option_has_its_line_in_the_reference() -> None:
    rows = [line for line in REFERENCE.read_text().splitlines() if line.startswith("| `-")]
    documented = {*re.findall(r"`(-[-\w]+)`", "".join(row.split("|")[1] for row in rows))}
    assert documented == {f"--{name}" for name in LONG.keys() - {"mod"}} | {f"-{letter}" for letter in SHORT}


def test_version_is_the_original_s(capfd: pytest.CaptureFixture[str]) -> None:
    assert vde_switch.main(["prog", "-v", "word"]) == 0
    assert capfd.readouterr().out.startswith("VDE 2.3.2\n(umlab ")


def test_word_and_wrong_value_end_with_status_1(capfd: pytest.CaptureFixture[str]) -> None:
    assert vde_switch.main(["prog", "word"]) == 1
    assert vde_switch.main(["prog", "-n", "0"]) == 1
    assert capfd.readouterr().err == "prog: '0' is no number of ports; it lies between 1 and 65536\n"


def test_it_starts_without_what_it_does_not_use() -> None:
    code = "import umlab.compat._vde_process, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"typer", "rich", "httpx", "starlette", "yaml", "pydantic"} & {*modules.stdout.split()} == set()
