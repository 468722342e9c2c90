"""Tables of a switch's ports, addresses and mirror sessions, for ``umlab switch show``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from umlab.cli.difference import direction_text, port_text
from umlab.cli.page import Table

if TYPE_CHECKING:
    from umlab.cli.rate import Rate
    from umlab.daemon.view import FdbEntryView, PortView
    from umlab.switch.model import PortConfig, SwitchConfig

_PORT_HEADINGS = (
    *(" PORT", "KIND", "STATE", "VLAN", " PID", "USER", "GUEST", "MAC"),
    *(" RX", " TX", " DROPPED", "REASONS", " QUEUED"),
)
_PORT_SPARE = ("REASONS", " QUEUED", "USER", " PID", "MAC", "STATE")
_NEIGHBOUR_HEADINGS = (
    *(" PORT", "NEIGHBOUR", "CHASSIS", "ITS PORT"),
    *("PORT DESCRIPTION", "CAPABILITIES", "ADDRESSES"),
)
_NEIGHBOUR_SPARE = ("PORT DESCRIPTION", "CAPABILITIES", "ADDRESSES")
#: Addresses of a port, or a neighbour, that its line shows,
_SHOWN_MACS = 2
#: and letters of what somebody else has made as long as he liked.
_SHOWN_LETTERS = 60
_DROP = "drop_"
#: Reasons for which a frame to a port is dropped; all others are of frames from there.
_EGRESS_DROPS = {"tail", "peer_gone", "refused"}


def port_table(ports: list[PortView], config: SwitchConfig) -> Table | str:
    """Return a line for each port, and one for all that are told the same and have nobody yet."""
    from umlab.daemon.port_setting import ports_text

    rows = {port.port_no: _port_row(port, _vlan_text(config.ports.get(port.port_no))) for port in ports}
    empty: dict[PortConfig, list[int]] = {}
    for number in sorted(config.ports.keys() - rows.keys()):
        empty.setdefault(config.ports[number], []).append(number)
    for port_config, numbers in empty.items():
        told = _vlan_text(port_config)
        rows[numbers[0]] = (_short(ports_text(numbers)), "-", "empty", told, *("-",) * 9)
    return Table(_PORT_HEADINGS, [rows[each] for each in sorted(rows)], _PORT_SPARE) if rows else _NOBODY


def neighbour_table(ports: list[PortView]) -> Table:
    """Return who says by LLDP that it is at the other end of a port."""
    rows = [
        (
            str(port.port_no),
            *(
                _short(text or "-")
                for text in (
                    each.system_name,
                    each.chassis_id,
                    each.port_id,
                    each.port_description,
                    " ".join(each.capabilities),
                )
            ),
            " ".join(each.management_addresses[:_SHOWN_MACS]) or "-",
        )
        for port in ports
        for each in port.neighbours
    ]
    return Table(_NEIGHBOUR_HEADINGS, rows, _NEIGHBOUR_SPARE)


def counter_table(ports: list[PortView]) -> Table | str:
    """Return how many frames each port had in either direction, by size, and what was dropped and why."""
    from umlab.daemon.record import SIZE_NAMES

    headings = (" PORT", "WAY", " FRAMES", " BYTES", *(f" {name.replace('_', '-')}" for name in SIZE_NAMES))
    rows = [
        (
            str(port.port_no),
            way,
            *(str(port.counters.get(f"{kind}_{name}", 0)) for name in ("frames", "bytes")),
            *(str(port.counters.get(f"{kind}_size_{name}", 0)) for name in SIZE_NAMES),
            _drops_text(_drops(port, egress=kind == "tx")),
        )
        for port in ports
        for way, kind in (("in", "rx"), ("out", "tx"))
    ]
    return Table((*headings, "DROPPED"), rows) if rows else _NOBODY


def rate_table(rates: Mapping[int, Rate]) -> Table | str:
    """Return how fast each port goes."""
    from umlab.cli.top_page import quantity

    rows = [
        (
            str(number),
            *(quantity(each) for each in (rate.rx_frames, rate.rx_bits, rate.tx_frames, rate.tx_bits)),
            quantity(rate.drops),
        )
        for number, rate in rates.items()
    ]
    headings = (" PORT", " IN/s", " IN BIT/s", " OUT/s", " OUT BIT/s", " DROPS/s")
    return Table(headings, rows) if rows else _NOBODY


def mirror_table(config: SwitchConfig) -> Table:
    """Return the mirror sessions."""
    from umlab.daemon.port_setting import ports_text

    rows = [
        (
            each.name,
            _short(ports_text(each.ports)) or "-",
            direction_text(each).removeprefix(", ") or "both ways",
            _short(str(each.vids)) or "-",
            str(each.destination),
        )
        for each in config.mirrors
    ]
    return Table(("MIRROR", "PORTS", "WAY", "VLANS", " TO"), rows)


def fdb_table(entries: list[FdbEntryView]) -> Table | str:
    """Return the learnt addresses."""
    rows = [(entry.mac, str(entry.vid or "-"), str(entry.port_no), f"{entry.age:.1f} s") for entry in entries]
    return Table(("MAC", " VLAN", " PORT", " AGE"), rows) if rows else "no address is known"


_NOBODY = "nothing is plugged in"


def _port_row(port: PortView, vlan: str) -> tuple[str, ...]:
    drops = _drops(port, egress=False) | _drops(port, egress=True)
    macs = " ".join(port.macs[:_SHOWN_MACS]) or "-"
    if port.fdb_entries > _SHOWN_MACS:
        macs += f" +{port.fdb_entries - _SHOWN_MACS}"
    return (
        str(port.port_no),
        f"{port.kind} {port.detail}".rstrip(),
        port.state,
        vlan,
        # 0: the process is there, and in a place that is not visible from here.
        "-" if port.pid is None else str(port.pid or "?"),
        port.user or "-",
        # What a process elsewhere calls itself may be the name of a guest of the lab.
        port.guest or (f"({port.umid})" if port.umid else "-"),
        macs,
        str(port.counters.get("rx_frames", 0)),
        str(port.counters.get("tx_frames", 0)),
        str(sum(drops.values())),
        _drops_text(drops),
        str(port.queued),
    )


def _vlan_text(port: PortConfig | None) -> str:
    return "-" if port is None else _short(port_text(port).removeprefix("transparent, "))


def _short(text: str) -> str:
    """Return what a cell has room for: one long text makes every line of its table as long."""
    return text if len(text) <= _SHOWN_LETTERS else text[: _SHOWN_LETTERS - 3] + "..."


def _drops(port: PortView, *, egress: bool) -> dict[str, int]:
    """Return how many frames were dropped in one direction, by reason."""
    return {
        reason: count
        for name, count in port.counters.items()
        if count and name.startswith(_DROP)
        if ((reason := name.removeprefix(_DROP)) in _EGRESS_DROPS) == egress
    }


def _drops_text(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in drops.items()) or "-"
