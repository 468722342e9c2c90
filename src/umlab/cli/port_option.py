"""The options of ``umlab switch set`` that are about ports and mirror sessions: from words to a change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
    from umlab.switch.vlan import PortVlan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PortOrder:
    """What some ports are told to be.

    Attributes:
        numbers: The ports.
        vlan: What they do with tags; ``None`` for as before.
        reserved: Their policy; ``None`` for as before.
        from_default: "As before" is as at first.
    """

    numbers: Sequence[int]
    vlan: PortVlan | None
    reserved: ReservedPolicy | None
    from_default: bool = False

    def of(self, config: SwitchConfig) -> dict[int, PortConfig]:
        """Return what the ports of a configuration become that are not that already."""
        from umlab.switch.model import PortConfig

        changed = {}
        for number in self.numbers:
            before = config.ports.get(number, PortConfig())
            base = PortConfig() if self.from_default else before
            after = PortConfig(self.vlan or base.vlan, self.reserved or base.reserved)
            if after != before:
                changed[number] = after
        return changed


@dataclass(frozen=True, slots=True)
class PortWords:
    """What the ports of ``--ports`` are told to be, as it was typed; ``None`` for what was not."""

    ports: str | None = None
    access: int | None = None
    trunk: str | None = None
    native: int | None = None
    pvid: int | None = None
    tagged: str | None = None
    untagged: str | None = None
    tpid: str | None = None
    transparent: bool = False
    reserved: str | None = None

    def read(self) -> PortOrder:
        """Return what the words say; no ports where there are none.

        Raises:
            typer.BadParameter: The words do not go together, or one is wrong.
        """
        from umlab.daemon.port_setting import port_from_form, read_ports
        from umlab.switch.model import ReservedPolicy

        names = ("access", "trunk", "native", "pvid", "tagged", "untagged", "tpid")
        form = {name: value for name in names if (value := getattr(self, name)) is not None}
        is_told = bool(form) or self.transparent or self.reserved is not None
        if self.ports is None:
            if is_told:
                raise typer.BadParameter("say which ports, such as --ports 1-12,20")
            return PortOrder((), None, None)
        if not is_told:
            raise typer.BadParameter(
                "say what they are told to be, such as --access 10", param_hint="--ports"
            )
        if form and self.transparent:
            raise typer.BadParameter("a transparent port looks at no tags", param_hint="--transparent")
        vlan = _read(lambda: port_from_form(form)).vlan
        numbers = _read(lambda: read_ports(self.ports or ""), "--ports")
        reserved = None if self.reserved is None else ReservedPolicy(self.reserved)
        return PortOrder(numbers, vlan, reserved, from_default=self.transparent)


@dataclass(frozen=True, slots=True)
class MirrorWords:
    """The mirror session of ``--mirror``, and the names of those that end, as it was typed."""

    name: str | None = None
    source: str | None = None
    vlans: str | None = None
    to: int | None = None
    ingress_only: bool = False
    egress_only: bool = False
    ended: Sequence[str] = ()

    def read(self) -> dict[str, MirrorSession | None]:
        """Return what becomes of each session that is named.

        Raises:
            typer.BadParameter: The words do not go together, or one is wrong.
        """
        from umlab.daemon.port_setting import mirror_from_form, read_ports

        changed: dict[str, MirrorSession | None] = dict.fromkeys(self.ended)
        is_told = (self.source, self.vlans, self.to) != (None, None, None)
        if self.name is None:
            if is_told or self.ingress_only or self.egress_only:
                raise typer.BadParameter("name the session, such as --mirror tap")
            return changed
        if self.name in changed:
            raise typer.BadParameter(f"{self.name} cannot both begin and end", param_hint="--no-mirror")
        if self.to is None or (self.source, self.vlans) == (None, None):
            text = "say what is copied to which port, such as --from 1,2 --to 3 or --vlans 10 --to 3"
            raise typer.BadParameter(text, param_hint="--mirror")
        if self.ingress_only and self.egress_only:
            raise typer.BadParameter("take one of --ingress-only and --egress-only", param_hint="--mirror")
        if self.source is None and (self.ingress_only or self.egress_only):
            raise typer.BadParameter("a direction is one of the ports of --from", param_hint="--mirror")
        form: dict[str, Any] = {"name": self.name, "destination": self.to}
        if self.source is not None:
            source = self.source
            form["ports"] = _read(lambda: read_ports(source), "--from")
        if self.vlans is not None:
            form["vlans"] = self.vlans
        form |= {"ingress": not self.egress_only, "egress": not self.ingress_only}
        changed[self.name] = _read(lambda: mirror_from_form(form), "--mirror")
        return changed


def _read(read: Callable[[], T], hint: str | None = None) -> T:
    try:
        return read()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None
