"""``umlab switch ls`` and ``show``."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umlab.cli.option import AsJson, SwitchName, Watch
from umlab.cli.page import Page, Table, present
from umlab.cli.switch_args import best_argument

if TYPE_CHECKING:
    from umlab.cli.rate import Rate
    from umlab.client.sync import Client
    from umlab.daemon.view import ListenerView, PortView, SwitchView

LS_EPILOG = """
Examples:

  umlab switch ls

  umlab switch ls --watch

  umlab switch ls --json
"""

SHOW_EPILOG = """
Examples:

  umlab switch show lan

  umlab switch show ring/a --fdb

  umlab switch show lan --counters --rates

  umlab switch show lan --watch 5
"""

_LS_HEADINGS = ("NAME", "LAB", "ENGINE", " PORTS", " GUESTS", " FDB", "STATE")
_LS_SPARE = ("ENGINE", " FDB")
#: Seconds between the two looks of ``--rates``.
_RATE_TIME = 1.0


def ls(as_json: AsJson = False, watch: Watch = None) -> None:
    """List the switches of all running labs.

    GUESTS is the number of processes that are plugged in. The state is "up", "hung" where the lab's daemon
    does not answer, or "kept" where it has died: "umlab switch run" takes all up again, "umlab switch stop"
    ends it.
    """
    present(_list, as_json=as_json, watch=watch)


def show(
    name: SwitchName,
    fdb: Annotated[bool, typer.Option("--fdb", help="Show the learnt addresses as well.")] = False,
    counters: Annotated[
        bool,
        typer.Option("--counters", help="Show frames by size, and drops by direction and reason, as well."),
    ] = False,
    rates: Annotated[
        bool, typer.Option("--rates", help="Show what goes over the ports in one second as well.")
    ] = False,
    as_json: AsJson = False,
    watch: Watch = None,
) -> None:
    """Show a switch: what it is told to be, where guests attach, every port and its neighbours."""
    from umlab.cli.target import switch_place
    from umlab.client.sync import Client

    lab, switch = switch_place(name)

    def build() -> Page:
        with Client(lab) as client:
            return _show(
                client, switch, with_fdb=fdb, with_counters=counters, with_rates=rates, as_json=as_json
            )

    present(build, as_json=as_json, watch=watch)


def _list() -> Page:
    from umlab.client.survey import survey
    from umlab.client.sync import Client
    from umlab.errors import ApiError, LabNotRunning

    records: list[dict[str, Any]] = []
    rows = []

    def add_unknown(lab: str, state: str) -> None:
        records.append({"lab": lab, "state": state})
        rows.append(("?", lab, "?", "?", "?", "?", state))

    found_labs = survey()
    for lab, answer in found_labs.answers.items():
        found = None
        if answer is not None:
            try:
                with Client(lab) as client:
                    found = [(switch, client.ports(switch.name)) for switch in client.switches()]
            except LabNotRunning:
                # It has ended since it was asked.
                continue
            except ApiError:
                pass
        if found is None:
            add_unknown(lab, "hung")
            continue
        for switch, ports in found:
            guests = _count_guests(ports)
            records.append(
                {
                    "name": switch.name,
                    "lab": lab,
                    "engine": switch.engine,
                    "ports": switch.ports,
                    "guests": guests,
                    "fdb_entries": switch.fdb_entries,
                    "state": "up",
                }
            )
            counts = (str(switch.ports), str(guests), str(switch.fdb_entries))
            rows.append((switch.name, lab, switch.engine, *counts, "up"))
    for lab in found_labs.kept:
        add_unknown(lab, "kept")
    return Page(records, [Table(_LS_HEADINGS, rows, _LS_SPARE)] if rows else ["no switch runs"])


def _count_guests(ports: list[PortView]) -> int:
    """Return how many processes are plugged in; those that are not visible count one for each port."""
    pids = [port.pid for port in ports if port.pid is not None]
    return len({pid for pid in pids if pid}) + pids.count(0)


def _show(
    client: Client, switch: str, *, with_fdb: bool, with_counters: bool, with_rates: bool, as_json: bool
) -> Page:
    from umlab.cli import port_page
    from umlab.cli.target import missing_switch
    from umlab.daemon.port_setting import config_to_form
    from umlab.errors import NoSuchSwitch

    try:
        view = client.switch(switch)
        ports = client.ports(switch)
        entries = client.fdb(switch) if with_fdb or as_json else []
        rates = _rates(client, switch) if with_rates else {}
    except NoSuchSwitch as error:
        raise missing_switch(client, error) from None
    record: dict[str, Any] = {
        "lab": client.name,
        "switch": dataclasses.asdict(view) | {"config": config_to_form(view.config)},
        "ports": [dataclasses.asdict(port) for port in ports],
    }
    parts = [*_switch_lines(client.name, view), _listener_table(view.listeners), ""]
    parts.append(port_page.port_table(ports, view.config))
    if any(port.neighbours for port in ports):
        parts += ["", port_page.neighbour_table(ports)]
    if view.config.mirrors:
        parts += ["", port_page.mirror_table(view.config)]
    if as_json:
        # A port's own are the latest ones only.
        for port in record["ports"]:
            port["macs"] = [entry.mac for entry in entries if entry.port_no == port["port_no"]][::-1]
    if with_fdb:
        record["fdb"] = [dataclasses.asdict(entry) for entry in entries]
        parts += ["", port_page.fdb_table(entries)]
    if with_counters:
        parts += ["", port_page.counter_table(ports)]
    if with_rates:
        record["rates"] = [{"port_no": number, **dataclasses.asdict(rate)} for number, rate in rates.items()]
        parts += ["", port_page.rate_table(rates)]
    return Page([record], parts)


def _rates(client: Client, switch: str) -> dict[int, Rate]:
    """Return how fast the ports go, after a second."""
    from umlab.cli.rate import LabLook, port_rates

    before = LabLook(time.monotonic(), ports={switch: client.ports(switch)})
    time.sleep(_RATE_TIME)
    return port_rates(before, LabLook(time.monotonic(), ports={switch: client.ports(switch)}), switch)


def _switch_lines(lab: str, view: SwitchView) -> list[str | Table]:
    from umlab.cli.setting import format_size, format_switched, format_time

    config = view.config
    counters = ", ".join(f"{name} {count}" for name, count in view.counters.items())
    return [
        f"switch {view.name} of lab {lab}, {view.engine} engine",
        f"  hub={format_switched(config.hub)} ageing_time={format_time(config.ageing_time_ns)} "
        f"max_frame={config.max_frame}",
        f"  fdb_capacity={config.fdb_capacity} egress_queue_depth={config.egress_queue_depth} "
        f"lldp={format_switched(view.lldp)} recorder={format_size(view.recorder)}",
        f"  {view.fdb_entries} addresses in the FDB; {counters}",
        "",
    ]


def _listener_table(listeners: tuple[ListenerView, ...]) -> Table | str:
    rows = [(each.kind, each.where, best_argument(each.arguments) or "-") for each in listeners]
    return Table(("LISTENS", "WHERE", "ATTACH WITH"), rows) if rows else "it listens nowhere"
