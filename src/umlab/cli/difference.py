"""What a change makes of a switch: the difference between two configurations, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from umlab.cli.setting import SETTINGS

if TYPE_CHECKING:
    from umlab.daemon.switch_change import SwitchChange
    from umlab.daemon.view import SwitchView
    from umlab.switch.model import MirrorSession, PortConfig, SwitchConfig

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that becomes another.

    Attributes:
        record: For programs: ``setting``, ``ports`` or ``mirror``, ``before`` and ``after``.
        text: For people: one line.
    """

    record: Record
    text: str


def differences(view: SwitchView, change: SwitchChange) -> list[Difference]:
    """Return what a change makes another: settings, then ports, then mirror sessions.

    Raises:
        ValueError: No switch can be that.
    """
    before, after = view.config, change.of(view.config)
    lldp = view.lldp if change.lldp is None else change.lldp
    settings = [
        {each.name: getattr(config, each.name) for each in fields(config)} | {"lldp": is_sent}
        for config, is_sent in ((before, view.lldp), (after, lldp))
    ]
    return [*_settings(*settings), *_ports(before.ports, after.ports), *_mirrors(before, after)]


def port_text(port: PortConfig) -> str:
    """Return what a port is told to be, such as ``trunk 10,20-29 native 1`` or ``transparent``."""
    from umlab.daemon.port_setting import port_to_form

    form = port_to_form(port)
    reserved = form.pop("reserved", None)
    words = " ".join(f"{key} {value}" for key, value in form.items())
    if "pvid" in form or "tagged" in form or "untagged" in form:
        words = f"hybrid {words}"
    return f"{words or 'transparent'}{f', reserved {reserved}' if reserved else ''}"


def mirror_text(session: MirrorSession) -> str:
    """Return what a mirror session copies, such as ``port 1-2 and VLAN 10 to port 3, ingress only``."""
    from umlab.daemon.port_setting import ports_text

    sources = []
    if session.ports:
        sources.append(f"port {ports_text(session.ports)}")
    if session.vids:
        sources.append(f"VLAN {session.vids}")
    return f"{' and '.join(sources)} to port {session.destination}{direction_text(session)}"


def direction_text(session: MirrorSession) -> str:
    """Return the one direction that a session copies with a comma in front; empty for both, or no ports."""
    if not session.ports or (session.ingress and session.egress):
        return ""
    return f", {'ingress' if session.ingress else 'egress'} only"


def _settings(before: Record, after: Record) -> list[Difference]:
    found = []
    for key, setting in SETTINGS.items():
        old, new = before[setting.field], after[setting.field]
        if old != new:
            record = {"setting": setting.field, "before": old, "after": new}
            found.append(Difference(record, f"{key}: {setting.format(old)} -> {setting.format(new)}"))
    return found


def _ports(before: Mapping[int, PortConfig], after: Mapping[int, PortConfig]) -> list[Difference]:
    """Return the difference of ports, those together that change in the same way."""
    from umlab.daemon.port_setting import port_to_form, ports_text
    from umlab.switch.model import PortConfig

    changes: dict[tuple[PortConfig, PortConfig], list[int]] = {}
    for number in sorted(before.keys() | after.keys()):
        old, new = before.get(number, PortConfig()), after.get(number, PortConfig())
        if old != new:
            changes.setdefault((old, new), []).append(number)
    return [
        Difference(
            {"ports": numbers, "before": port_to_form(old), "after": port_to_form(new)},
            f"port {ports_text(numbers)}: {port_text(old)} -> {port_text(new)}",
        )
        for (old, new), numbers in changes.items()
    ]


def _mirrors(before: SwitchConfig, after: SwitchConfig) -> list[Difference]:
    from umlab.daemon.port_setting import mirror_to_form

    olds, news = ({each.name: each for each in config.mirrors} for config in (before, after))
    found = []
    for name in dict.fromkeys((*olds, *news)):
        old, new = olds.get(name), news.get(name)
        if old != new:
            record = {
                "mirror": name,
                "before": mirror_to_form(old) if old else None,
                "after": mirror_to_form(new) if new else None,
            }
            words = (mirror_text(each) if each else "none" for each in (old, new))
            found.append(Difference(record, f"mirror {name}: {' -> '.join(words)}"))
    return found
