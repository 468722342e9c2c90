"""``umlab switch ls`` and ``show``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umlab.cli.option import AsJson, SwitchName, Watch
from umlab.cli.page import Page, Table, present
from umlab.cli.switch_args import best_argument

if TYPE_CHECKING:
    from umlab.client.sync import Client
    from umlab.daemon.view import FdbEntryView, ListenerView, PortView, SwitchView

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

  umlab switch show lan --watch 5
"""

_LS_HEADINGS = ("NAME", "LAB", "ENGINE", " PORTS", " GUESTS", " FDB", "STATE")
_LS_SPARE = ("ENGINE", " FDB")
_PORT_HEADINGS = (
    *(" PORT", "KIND", "STATE", " PID", "USER", "GUEST", "MAC"),
    *(" RX", " TX", " DROPPED", "REASONS", " QUEUED"),
)
_PORT_SPARE = ("REASONS", " QUEUED", "USER", " PID", "MAC", "STATE")
_NEIGHBOUR_HEADINGS = (
    *(" PORT", "NEIGHBOUR", "CHASSIS", "ITS PORT"),
    *("PORT DESCRIPTION", "CAPABILITIES", "ADDRESSES"),
)
_NEIGHBOUR_SPARE = ("PORT DESCRIPTION", "CAPABILITIES", "ADDRESSES")
#: Addresses of a port, or a neighbour, that its line shows.
_SHOWN_MACS = 2


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
    as_json: AsJson = False,
    watch: Watch = None,
) -> None:
    """Show a switch: what it is told to be, where guests attach, every port and its neighbours."""
    from umlab.cli.target import switch_place
    from umlab.client.sync import Client

    lab, switch = switch_place(name)

    def build() -> Page:
        with Client(lab) as client:
            return _show(client, switch, with_fdb=fdb, all_macs=as_json)

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


def _show(client: Client, switch: str, *, with_fdb: bool, all_macs: bool) -> Page:
    from umlab.cli.target import missing_switch
    from umlab.errors import NoSuchSwitch

    try:
        view = client.switch(switch)
        ports = client.ports(switch)
        entries = client.fdb(switch) if with_fdb or all_macs else []
    except NoSuchSwitch as error:
        raise missing_switch(client, error) from None
    record: dict[str, Any] = {
        "lab": client.name,
        "switch": dataclasses.asdict(view),
        "ports": [dataclasses.asdict(port) for port in ports],
    }
    parts = [*_switch_lines(client.name, view), _listener_table(view.listeners), "", _port_table(ports)]
    if any(port.neighbours for port in ports):
        parts += ["", _neighbour_table(ports)]
    if all_macs:
        # A port's own are the latest ones only.
        for port in record["ports"]:
            port["macs"] = [entry.mac for entry in entries if entry.port_no == port["port_no"]][::-1]
    if with_fdb:
        record["fdb"] = [dataclasses.asdict(entry) for entry in entries]
        parts += ["", _fdb_table(entries)]
    return Page([record], parts)


def _switch_lines(lab: str, view: SwitchView) -> list[str | Table]:
    from umlab.cli.setting import format_time

    config = view.config
    counters = ", ".join(f"{name} {count}" for name, count in view.counters.items())
    return [
        f"switch {view.name} of lab {lab}, {view.engine} engine",
        f"  hub={'on' if config.hub else 'off'} ageing_time={format_time(config.ageing_time_ns)} "
        f"max_frame={config.max_frame}",
        f"  fdb_capacity={config.fdb_capacity} egress_queue_depth={config.egress_queue_depth} "
        f"lldp={'on' if view.lldp else 'off'}",
        f"  {view.fdb_entries} addresses in the FDB; {counters}",
        "",
    ]


def _listener_table(listeners: tuple[ListenerView, ...]) -> Table | str:
    rows = [(each.kind, each.where, best_argument(each.arguments) or "-") for each in listeners]
    return Table(("LISTENS", "WHERE", "ATTACH WITH"), rows) if rows else "it listens nowhere"


def _port_table(ports: list[PortView]) -> Table | str:
    rows = []
    for port in ports:
        drops = {
            name.removeprefix("drop_"): count
            for name, count in port.counters.items()
            if name.startswith("drop_") and count
        }
        macs = " ".join(port.macs[:_SHOWN_MACS]) or "-"
        if port.fdb_entries > _SHOWN_MACS:
            macs += f" +{port.fdb_entries - _SHOWN_MACS}"
        rows.append(
            (
                str(port.port_no),
                f"{port.kind} {port.detail}".rstrip(),
                port.state,
                # 0: the process is there, and in a place that is not visible from here.
                "-" if port.pid is None else str(port.pid or "?"),
                port.user or "-",
                # What a process elsewhere calls itself may be the name of a guest of the lab.
                port.guest or (f"({port.umid})" if port.umid else "-"),
                macs,
                str(port.counters.get("rx_frames", 0)),
                str(port.counters.get("tx_frames", 0)),
                str(sum(drops.values())),
                ", ".join(f"{reason} {count}" for reason, count in drops.items()) or "-",
                str(port.queued),
            )
        )
    return Table(_PORT_HEADINGS, rows, _PORT_SPARE) if rows else "nothing is plugged in"


def _neighbour_table(ports: list[PortView]) -> Table:
    rows = [
        (
            str(port.port_no),
            each.system_name or "-",
            each.chassis_id,
            each.port_id,
            each.port_description or "-",
            " ".join(each.capabilities) or "-",
            " ".join(each.management_addresses[:_SHOWN_MACS]) or "-",
        )
        for port in ports
        for each in port.neighbours
    ]
    return Table(_NEIGHBOUR_HEADINGS, rows, _NEIGHBOUR_SPARE)


def _fdb_table(entries: list[FdbEntryView]) -> Table | str:
    rows = [(entry.mac, str(entry.port_no), f"{entry.age:.1f} s") for entry in entries]
    return Table(("MAC", " PORT", " AGE"), rows) if rows else "no address is known"
