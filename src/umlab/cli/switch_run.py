"""``umlab switch run``: one switch, or the switches and guests of a file, in front or in the background."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from umlab.cli.output import Output, event_text
from umlab.cli.switch_args import best_argument

if TYPE_CHECKING:
    from umlab.daemon.lab import LabService
    from umlab.daemon.order import LabOrder
    from umlab.switch.model import SwitchConfig
    from umlab.transports.contract import Access

EPILOG = """
Examples:

  umlab switch run lan

  umlab switch run lan --background

  umlab switch run lan --listen daemon:/tmp/net1.ctl --listen bess:/tmp/net1.bess

  umlab switch run lan --recorder 256M

  umlab switch run old --listen daemon:/tmp/uml.ctl,/tmp/uml.data --hub

  umlab switch run lan --listen bess:/srv/lan.bess --mode 0660 --group lab --allow-group lab

  umlab switch run office --file office.yaml
"""

Record = dict[str, Any]


class RunCommand(TyperCommand):
    """A command whose help names the transports that there are."""

    def format_help(self, *args: Any, **settings: Any) -> None:
        """Write the help; see ``TyperCommand``."""
        from umlab.daemon.spec import DEFAULT_KINDS
        from umlab.transports.registry import TRANSPORTS

        # A bracket would begin a style.
        forms = ", ".join(each.form for each in TRANSPORTS.values()).replace("[", "\\[")
        (listen,) = (each for each in self.params if each.name == "listen")
        assert isinstance(listen, TyperOption)
        listen.help = (listen.help or "").format(forms=forms, kinds=", ".join(DEFAULT_KINDS))
        super().format_help(*args, **settings)


def run(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The switch's name, at most 24 characters.", show_default=False),
    ],
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            metavar="SPEC",
            help="Where guests attach: {forms}. May be given several times; all are one broadcast domain. "
            "Without it: {kinds}, each in the runtime directory.",
            show_default=False,
        ),
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Forward every frame to every port.")] = False,
    ageing_time: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=1_000_000,
            metavar="SECONDS",
            help="Forget an address unseen for so long; 300 unless given.",
            show_default=False,
        ),
    ] = None,
    max_frame: Annotated[
        int | None,
        typer.Option(
            min=1514,
            max=65_535,
            metavar="BYTES",
            help="The longest frame, without FCS; 9018 unless given.",
            show_default=False,
        ),
    ] = None,
    recorder: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Memory for the flight recorder, such as 64M, or off; 16M unless given.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="Permission bits of the sockets, in octal, such as 0660; 0600 unless given.",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="The group that the sockets are given.", show_default=False),
    ] = None,
    allow_user: Annotated[
        list[str] | None,
        typer.Option(
            metavar="USER",
            help="A user who may attach, beside ourselves and root; all who can open a socket unless given. "
            "May be given several times.",
            show_default=False,
        ),
    ] = None,
    allow_group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP",
            help="A group whose members may attach. May be given several times.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Run the segments and guests of a YAML file instead, as the lab NAME.",
            show_default=False,
        ),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Return when it is ready; 'umlab switch stop' ends it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Run one switch until it is interrupted (Ctrl-C, SIGTERM or SIGHUP), or in the background.

    Where an earlier one was killed, its ports and guests are taken up as they were.
    """
    if file is not None:
        settings = (listen, hub, ageing_time, max_frame, recorder, mode, group, allow_user, allow_group)
        if any(settings):
            raise typer.BadParameter("a file says itself what its segments are", param_hint="--file")
        order = _file_order(name, file)
    else:
        access = _access(mode, group, allow_user or [], allow_group or [])
        config = _config(hub, ageing_time, max_frame)
        order = _order(name, listen or (), config, access, _recorder(recorder))
    if background:
        _start(order, Output(as_json=as_json))
    else:
        _run(order, as_json=as_json)


def _file_order(name: str, file: Path) -> LabOrder:
    from umlab.daemon.order import LabOrder
    from umlab.lab.file import load

    lab = load(file, runtime=_runtime(name))
    return LabOrder(name, tuple(lab.segments.values()), tuple(lab.guests.values()))


def _order(name: str, listen: Sequence[str], config: SwitchConfig, access: Access, recorder: int) -> LabOrder:
    from umlab.daemon.order import LabOrder
    from umlab.daemon.spec import DEFAULT_KINDS, SwitchSpec, resolve_listen

    runtime = _runtime(name)
    places = tuple(resolve_listen(spec, name, runtime) for spec in listen or DEFAULT_KINDS)
    try:
        spec = SwitchSpec(name, config, places, access, recorder)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--recorder") from None
    return LabOrder(name, (spec,), alone=True)


def _config(hub: bool, ageing_time: float | None, max_frame: int | None) -> SwitchConfig:
    from umlab.switch.model import SECOND_NS, SwitchConfig

    config = SwitchConfig(hub=hub)
    if ageing_time is not None:
        config = dataclasses.replace(config, ageing_time_ns=int(ageing_time * SECOND_NS))
    return config if max_frame is None else dataclasses.replace(config, max_frame=max_frame)


def _recorder(text: str | None) -> int:
    """Return the bytes of a flight recorder, 0 for none."""
    from umlab.cli.setting import parse_size
    from umlab.daemon.spec import DEFAULT_RECORDER

    if text is None or text == "off":
        return 0 if text else DEFAULT_RECORDER
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or off", param_hint="--recorder") from None


def _access(mode: str | None, group: str | None, allow_users: list[str], allow_groups: list[str]) -> Access:
    from umlab.daemon.access import make_access

    try:
        return make_access(mode, group, allow_users, allow_groups)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _runtime(name: str) -> Path:
    """Return where a lab's sockets are; made by the daemon, so what cannot begin leaves no directory."""
    from umlab._name import check_name
    from umlab.daemon.place import runtime_base

    return runtime_base() / check_name("switch", name)


def _start(order: LabOrder, output: Output) -> None:
    from umlab.api.background import start_in_background
    from umlab.client import Client

    start_in_background(order)
    with Client(order.name) as client:
        switches = [(each.name, each.engine, each.listeners) for each in client.switches()]
        record = _started(order.name, switches, [guest.name for guest in client.guests()])
    output.record(record, _started_text(record, switches))


def _run(order: LabOrder, *, as_json: bool) -> None:
    from umlab.api.run import Daemon, run_in_front

    front = _Front(as_json=as_json)
    run_in_front(Daemon(order, prepare=front.prepare, on_ready=front.ready, on_end=front.end))


class _Front:
    """What a daemon in front says: ``started`` first, then every event, ``stopping`` last."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._output: Output
        #: What happens before all has started, such as the port of a tap device.
        self._early: list[Record] = []
        self._take: Callable[[Record], None] = self._early.append

    def prepare(self, lab: LabService) -> None:
        """Follow a lab's events from the first one on."""
        import asyncio

        from umlab._line_writer import LineWriter

        # Who does not read the log must not hold the switch up.
        writer = LineWriter(
            sys.stdout.fileno(), asyncio.get_running_loop(), partial(_lost_line, as_json=self._as_json)
        )
        self._output = Output(as_json=self._as_json, write=writer.write)
        self._close = writer.close
        lab.events.subscribers.append(lambda record: self._take(record))

    def ready(self, lab: LabService) -> None:
        """Say that everything runs."""
        switches = [(each.name, each.engine, each.listeners) for each in lab.switches()]
        started = _started(lab.name, switches, [guest.name for guest in lab.guests()])
        self._output.record(started, _started_text(started, switches))
        self._take = self._report
        for record in self._early:
            self._report(record)

    def end(self, lab: LabService) -> None:
        """Say how it went."""
        from umlab.daemon.record import port_records

        self._take = lambda record: None
        ports = [
            {"switch": name} | port
            for name in lab.switch_set.names()
            for port in port_records(lab.switch_set.service(name))
        ]
        self._output.record({"event": "stopping", "ports": ports}, _port_table(ports))
        self._close()

    def _report(self, record: Record) -> None:
        self._output.record(record, _event_line(record))


def _started(name: str, switches: list[tuple[str, str, Any]], guests: list[str]) -> Record:
    return {
        "event": "started",
        "name": name,
        "engine": switches[0][1] if switches else None,
        "listeners": [
            {
                "switch": switch,
                "kind": each.kind,
                "where": each.where,
                "arguments": [dataclasses.asdict(argument) for argument in each.arguments],
            }
            for switch, _, listeners in switches
            for each in listeners
        ],
        "guests": guests,
    }


def _started_text(record: Record, switches: Iterable[tuple[str, str, Any]]) -> str:
    listeners = [listener for _, _, listeners in switches for listener in listeners]
    arguments = [text for each in listeners if (text := best_argument(each.arguments))]
    head = f"switch {record['name']} is up ({record['engine']} engine)"
    if record["engine"] is None:
        head = f"lab {record['name']} is up"
    return "\n  ".join([f"{head}; attach a guest with" if arguments else head, *arguments])


def _lost_line(count: int, *, as_json: bool) -> str:
    record: Record = {"event": "lines_lost", "count": count}
    return json.dumps(record) if as_json else _event_line(record)


def _event_line(record: Record) -> str:
    return event_text(record["event"], {key: value for key, value in record.items() if key not in _UNSAID})


#: What a line for people does without.
_UNSAID = ("event", "at", "at_ns", "switch")


def _port_table(ports: list[Record]) -> str:
    if not ports:
        return "no guest was attached"
    lines = [
        f"{'port':>4}  {'kind':<9} {'pid':>8} {'guest':<16} "
        f"{'rx frames':>12} {'tx frames':>12} {'dropped':>9}"
    ]
    for port in ports:
        dropped = sum(count for name, count in port["counters"].items() if name.startswith("drop_"))
        lines.append(
            f"{port['port_no']:>4}  {port['kind']:<9} {port['pid'] or '?':>8} {port['umid'] or '-':<16} "
            f"{port['counters']['rx_frames']:>12} {port['counters']['tx_frames']:>12} {dropped:>9}"
        )
    return "\n".join(lines)
