"""``umlab-extcap``: what Wireshark and tshark are told, in their grammar."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.fake_captures import FakeCaptures, port
from support.lab_thread import LabThread
from umlab.capture.order import CaptureProgress
from umlab.cli import extcap
from umlab.cli.main import main as umlab
from umlab.errors import LabError

Ask = Callable[..., str]


@pytest.fixture
def ask(runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return what runs the plug-in with some words and returns what it prints."""

    def ask(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["umlab-extcap", *words])
        extcap.main()
        return capsys.readouterr().out

    return ask


def test_switches_and_ports_are_interfaces(ask: Ask, runtime: Path) -> None:
    with LabThread(runtime, "lan", ("lan", "core")) as lan:
        lan.call(lambda lab: lab.add_port("lan", 1, "left"))
        lan.call(lambda lab: lab.add_port("core", 7, "x}{\x1b"))
        lines = ask("--extcap-interfaces", "--extcap-version=4.0").splitlines()
    assert lines[0].startswith("extcap {version=")
    assert lines[1:] == [
        "interface {value=umlab:lan/core}{display=switch lan/core}",
        r"interface {value=umlab:lan/core:7}{display=switch lan/core, port 7: daemon, guest x)(\x1b}",
        "interface {value=umlab:lan}{display=switch lan}",
        "interface {value=umlab:lan:1}{display=switch lan, port 1: daemon, guest left}",
    ]


def test_link_type_and_options_of_an_interface(ask: Ask) -> None:
    assert ask("--extcap-dlts", "--extcap-interface", "umlab:lan").startswith("dlt {number=1}{name=EN10MB}")
    config = ask("--extcap-config", "--extcap-interface", "umlab:lan")
    assert [line[: line.index("{display")] for line in config.splitlines()] == [
        "arg {number=0}{call=--snap-length}",
        "arg {number=1}{call=--last}",
    ]


def test_filter_is_judged(ask: Ask) -> None:
    words = ["--extcap-interface", "umlab:lan", "--extcap-capture-filter"]
    assert ask(*words, "1\n6 0 0 65535") == ""
    said = ask(*words, "1\n6 0 0")
    assert said.startswith("the filter ")
    assert said.count("\n") == 1


def test_capture_goes_to_the_pipe(ask: Ask, runtime: Path) -> None:
    fifo = runtime / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    steps = (CaptureProgress("started"), b"frames", CaptureProgress("ended"))
    with FakeCaptures(runtime, "lan", {"lan": [port(1)]}, lambda _: steps) as lan:
        reader.start()
        words = ["--extcap-capture-filter", "arp", "--snap-length", "96", "--last", "30"]
        ask("--capture", "--extcap-interface", "umlab:lan:1", "--fifo", str(fifo), *words)
        reader.join()
    assert read == [b"frames"]
    (order,) = lan.orders
    assert (
        order.items() > {"ports": [1], "filter": "arp", "snap_length": 96, "last": 30, "file": None}.items()
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--capture", "--extcap-interface", "eth0", "--fifo", "/x"], "no interface of ours"),
        (["--capture", "--extcap-interface", "umlab:lan"], "no --fifo"),
        (["--capture", "--extcap-interface", "umlab:lan", "--fifo", "/x"], "lan does not run"),
        (["--capture", "--extcap-interface", "umlab:wan:3-1", "--fifo", "/x"], "runs backwards"),
        (["--capture", "--extcap-interface", "umlab:wan", "--fifo", "/x/y"], "cannot open /x/y"),
        (["--capture", "--extcap-interface", "umlab:wan", "--fifo", "/x", "--snap-length", "1"], "between"),
    ],
)
def test_what_cannot_be_captured_is_one_line(ask: Ask, runtime: Path, words: list[str], said: str) -> None:
    with (
        FakeCaptures(runtime, "wan", {"wan": []}, lambda _: ()),
        pytest.raises(SystemExit) as ended,
    ):
        ask(*words)
    assert str(ended.value.code).startswith("umlab: ")
    assert said in str(ended.value.code)


@pytest.fixture
def home(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home of somebody who has umlab and no Wireshark."""
    monkeypatch.setenv("HOME", str(short_dir))
    monkeypatch.setenv("PATH", str(short_dir))
    scripts = short_dir / "scripts"
    scripts.mkdir()
    (scripts / "umlab-extcap").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(scripts))
    return short_dir


def test_plug_in_is_linked_to_where_wireshark_looks(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["umlab", "capture", "--install-extcap"])
        with pytest.raises(SystemExit):
            umlab()
        link = home / ".local/lib/wireshark/extcap/umlab-extcap"
        assert link.readlink() == home / "scripts" / "umlab-extcap"
    assert str(link) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "folder"),
    [
        ("Personal configuration:\t/H/c\nPersonal Extcap path:\t/H/p\n", "p"),
        ("Personal configuration:\t/H/c\nExtcap path:\t/usr/lib\n", "c/extcap"),
        ("nothing\n", ".local/lib/wireshark/extcap"),
    ],
)
def test_folder_is_the_one_that_tshark_names(home: Path, said: str, folder: str) -> None:
    tshark = home / "tshark"
    tshark.write_text(f"#!/bin/sh\necho '{said.replace('/H', str(home))}'\n")
    tshark.chmod(0o755)
    assert extcap.install().parent == home / folder


def test_plug_in_that_is_missing_is_told(home: Path) -> None:
    (home / "scripts/umlab-extcap").unlink()
    with pytest.raises(LabError, match="umlab-extcap is not there"):
        extcap.install()


def test_link_that_cannot_be_made_is_told(home: Path) -> None:
    (home / ".local").touch()
    with pytest.raises(LabError, match="cannot make"):
        extcap.install()
