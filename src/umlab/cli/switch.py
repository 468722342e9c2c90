"""``umlab switch``: one switch, in front."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umlab.cli.output import Output

if TYPE_CHECKING:
    from umlab.daemon.switch import SwitchService

app = typer.Typer(help="Virtual Ethernet switches.", no_args_is_help=True)

_RUN_EPILOG = """
Examples:

  umlab switch run lan

  umlab switch run lan --listen daemon:/tmp/net1.ctl --listen bess:/tmp/net1.bess

  umlab switch run old --listen daemon:/tmp/uml.ctl,/tmp/uml.data --hub
"""


@app.command("run", epilog=_RUN_EPILOG)
def run(
    name: Annotated[
        str, typer.Argument(help="The switch's name, at most 24 characters.", show_default=False)
    ],
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            metavar="SPEC",
            help="Where guests attach: daemon:CTL[,DATA] (DATA serves protocol v0 as well), bess:PATH or "
            "tap:DEVICE. May be given several times; all are one broadcast domain. "
            "Without it: a daemon and a bess socket in the runtime directory.",
            show_default=False,
        ),
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Forward every frame to every port.")] = False,
    ageing_time: Annotated[
        float,
        typer.Option(min=1, max=1_000_000, metavar="SECONDS", help="Forget an address unseen for so long."),
    ] = 300,
    max_frame: Annotated[
        int, typer.Option(min=1514, max=65_535, metavar="BYTES", help="The longest frame, without FCS.")
    ] = 9018,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Run one switch in front until it is interrupted (Ctrl-C, SIGTERM or SIGHUP)."""
    from umlab._name import check_name
    from umlab.daemon.place import runtime_directory
    from umlab.daemon.switch import SwitchService
    from umlab.switch.model import SECOND_NS, SwitchConfig
    from umlab.transports.registry import parse_listen

    check_name("switch", name)
    specs = listen
    if not specs:
        directory = runtime_directory(name)
        specs = [f"daemon:{directory}/daemon.ctl", f"bess:{directory}/bess"]
    config = SwitchConfig(hub=hub, ageing_time_ns=int(ageing_time * SECOND_NS), max_frame=max_frame)
    service = SwitchService(name, config, [parse_listen(spec) for spec in specs])
    asyncio.run(_run(service, as_json=as_json))


async def _run(service: SwitchService, *, as_json: bool) -> None:
    from umlab._line_writer import LineWriter
    from umlab.cli.record import event_record, port_records

    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Who does not read the log must not hold the switch up.
    writer = LineWriter(sys.stdout.fileno(), loop, partial(_lost_line, as_json=as_json))
    output = Output(as_json=as_json, write=writer.write)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupted.set)

    def report(event: object) -> None:
        record = event_record(event)
        output.record(record, _event_line(record))

    # A tap device has its port before the switch has started.
    early: list[object] = []
    take: Callable[[object], None] = early.append
    service.subscribe(lambda event: take(event))
    try:
        await service.start()
        started = _started_record(service)
        output.record(started, _started_text(started))
        take = report
        for event in early:
            report(event)
        await interrupted.wait()
        ports = port_records(service)
        await service.stop()
        output.record({"event": "stopping", "ports": ports}, _port_table(ports))
    finally:
        await service.stop()
        writer.close()


def _started_record(service: SwitchService) -> dict[str, Any]:
    return {
        "event": "started",
        "name": service.name,
        "engine": service.engine.kind,
        "listeners": [
            {"kind": each.kind, "where": each.where, "guest_argument": each.guest_argument}
            for each in service.listeners
        ],
    }


def _started_text(record: dict[str, Any]) -> str:
    arguments = [each["guest_argument"] for each in record["listeners"] if each["guest_argument"]]
    head = f"switch {record['name']} is up ({record['engine']} engine)"
    return "\n  ".join([f"{head}; attach a guest with" if arguments else head, *arguments])


def _lost_line(count: int, *, as_json: bool) -> str:
    record: dict[str, object] = {"event": "lines_lost", "count": count}
    return json.dumps(record) if as_json else _event_line(record)


def _event_line(record: dict[str, object]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in record.items() if key not in ("event", "at_ns"))
    return f"{str(record['event']).replace('_', ' ')}: {facts}"


def _port_table(ports: list[dict[str, Any]]) -> str:
    if not ports:
        return "no guest was attached"
    lines = [f"{'port':>4}  {'kind':<8} {'pid':>8} {'rx frames':>12} {'tx frames':>12} {'dropped':>9}"]
    for port in ports:
        dropped = sum(count for name, count in port["counters"].items() if name.startswith("drop_"))
        lines.append(
            f"{port['port_no']:>4}  {port['kind']:<8} {port['pid'] or '?':>8} "
            f"{port['counters']['rx_frames']:>12} {port['counters']['tx_frames']:>12} {dropped:>9}"
        )
    return "\n".join(lines)
