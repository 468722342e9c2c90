"""The reference is complete: what the code has is on its page, and the examples run."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
from typer.testing import CliRunner

from support.require import ROOT
from umlab import errors
from umlab.cli.app import app
from umlab.compat.uml_switch import usage
from umlab.daemon import capture, guest_notify, guest_set, hook, place, spec, watchdog
from umlab.daemon import switch as service
from umlab.daemon.event_kind import EVENT_KINDS
from umlab.mconsole import command, fleet, reading
from umlab.switch import counters, events
from umlab.switch.control import lldp
from umlab.testing.guest import SimulatedGuests

REFERENCE = ROOT / "docs/reference"


def classes(module: ModuleType) -> list[type]:
    """Return the classes that a module defines."""
    return [
        each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__
    ]


def missing(page: str, names: list[str]) -> list[str]:
    """Return the names that do not stand in a page as code."""
    assert names
    text = (REFERENCE / page).read_text()
    return [
        name
        for name in names
        if not re.search(rf"`[^`\n]*(?<![\w-]){re.escape(name)}(?![\w-])[^`\n]*`", text)
    ]


def test_every_error_has_its_line() -> None:
    assert missing("errors.md", [each.__name__ for each in classes(errors)]) == []


def test_every_event_and_each_of_its_fields_has_its_line() -> None:
    found = [
        each
        for each in (*classes(events), *classes(service), *classes(lldp))
        if dataclasses.is_dataclass(each) and "at_ns" in {field.name for field in dataclasses.fields(each)}
    ]
    fields = {field.name for each in found for field in dataclasses.fields(each)}
    assert missing("events-and-counters.md", [each.__name__ for each in found]) == []
    assert missing("events-and-counters.md", sorted(fields)) == []


def test_every_event_of_a_guest_has_its_line_with_its_fields() -> None:
    sources = "".join(map(inspect.getsource, (guest_set, guest_notify, watchdog)))
    published = re.findall(r'publish\((\{"event": "guest_.*?\})\)', sources)
    kinds = {re.findall(r'"(\w+)"', words)[1] for words in published}
    assert kinds == set(hook.GUEST_EVENTS)
    text = (REFERENCE / "events-and-counters.md").read_text()
    for words in published:
        kind, *fields = [word for word in re.findall(r'"(\w+)"', words) if word != "event"]
        assert f"| `{kind}` | {', '.join(f'`{field}`' for field in fields)} |" in text


def test_every_event_of_a_hook_has_its_line() -> None:
    published = re.findall(r'"event": "(hook_\w+)"', inspect.getsource(hook))
    assert len(published) > 2
    assert missing("events-and-counters.md", published) == []


def test_every_event_of_a_capture_has_its_line() -> None:
    published = re.findall(r'"event": "(capture_\w+)"', inspect.getsource(capture))
    assert missing("events-and-counters.md", published) == []


def test_every_event_is_one_that_can_be_chosen() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "src/umlab/daemon").glob("*.py"))
    published = re.findall(r'"event": "(\w+)"', sources)
    assert len(published) > 15
    assert set(published) <= set(EVENT_KINDS)
    table = (REFERENCE / "events-and-counters.md").read_text().partition("What `umlab switch run")[0]
    assert set(re.findall(r"^\| `\w+` \| `(\w+)` \| `", table, re.MULTILINE)) <= set(EVENT_KINDS)
    assert [kind for kind in EVENT_KINDS if f"`{kind}`" not in table] == []


def test_every_name_of_a_runtime_directory_has_its_line() -> None:
    names = [
        place.API_SOCKET,
        place.KEEPER_SOCKET,
        place.DAEMON_LOCK,
        place.KEEPER_LOCK,
        f"{place.GUESTS}/GUEST",
    ]
    sockets = [spec.default_listen(kind, "SEGMENT", Path("/")) for kind in spec.DEFAULT_KINDS]
    names += [Path(socket).name for socket in sockets]
    assert missing("files-and-sockets.md", names) == []


def test_every_counter_and_reason_to_drop_has_its_line() -> None:
    fields = [
        field.name
        for each in (counters.PortCounters, counters.SwitchCounters)
        for field in dataclasses.fields(each)
        if field.name != "drops"
    ]
    drops = [f"drop_{reason.value}" for reason in counters.DropReason]
    assert missing("events-and-counters.md", fields + drops) == []


def test_every_command_and_option_of_umlab_has_its_line() -> None:
    names = []
    todo = [typer.main.get_command(app)]
    while todo:
        command = todo.pop()
        todo += getattr(command, "commands", {}).values()
        names += [option for each in command.params for option in each.opts if option.startswith("--")]
        names.append(str(command.name))
    assert {"demo", "run", "--listen", "--json"} <= set(names)
    assert missing("umlab.md", sorted(set(names) - {"--help"})) == []


def test_every_command_shows_its_help() -> None:
    for words in ([], ["demo"], ["switch"], ["switch", "run"]):
        result = CliRunner().invoke(app, [*words, "--help"])
        assert result.exit_code == 0
        assert "Usage" in result.output


def test_every_option_of_uml_switch_has_its_line() -> None:
    options = sorted({*re.findall(r"(?<= )-[a-z0-9-]+", usage("uml_switch")), "-daemon"})
    assert {"-unix", "-hub", "-tap", "-compat-v0"} < set(options)
    assert missing("uml_switch.md", options) == []


def test_every_command_of_the_console_has_its_line() -> None:
    kernel = [
        "version",
        "help",
        "halt",
        "reboot",
        "config",
        "remove",
        "sysrq",
        "cad",
        "stop",
        "go",
        "log",
        "proc",
        "stack",
    ]
    assert missing("uml_mconsole.md", [*kernel, "quit", "switch", "int", "mconsole-version"]) == []


def test_every_name_of_the_console_library_has_its_line() -> None:
    modules = (command, reading, fleet)
    names = [name for module in modules for name in module.__all__ if not name.startswith("parse_")]
    values = [each for module in modules for each in classes(module) if dataclasses.is_dataclass(each)]
    names += [field.name for each in values for field in dataclasses.fields(each)]
    left_out = {"timeout_of", "QUICK_TIMEOUT", "LONG_TIMEOUT", "CONCURRENCY", "Console", "DeviceSetting"}
    assert missing("console-library.md", sorted(set(names) - left_out)) == []


def test_console_examples_run(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs/howto/script-guests-from-python.md").read_text()
    disk = short_dir / "disk.img"
    disk.write_bytes(bytes(8192))
    blocks = re.findall(r"```python\n(.*?)```", text.replace("/srv/disk.img", str(disk)), re.DOTALL)
    monkeypatch.setenv("HOME", str(short_dir))
    (short_dir / ".uml").mkdir()
    names: dict[str, object] = {}

    with SimulatedGuests(short_dir / ".uml") as guests:
        for umid in ("left", "right"):
            guests.add(umid, nodename=f"host-{umid}")
        for block in blocks:
            exec(compile(block, "script-guests-from-python.md", "exec"), names)
    output = capsys.readouterr().out
    for words in ("Linux host-left ", "MiB to be had", str(disk), "right        Linux host-right"):
        assert words in output
    assert "left refused" not in output
    assert "silent: []" in output
    assert callable(names["everybody"])
