"""How a running switch's configuration is changed, all or nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from umlab.daemon.port_setting import ports_text
from umlab.errors import SwitchError
from umlab.switch.model import MirrorSession, PortConfig, SwitchConfig


@dataclass(frozen=True, slots=True)
class SwitchChange:
    """What a running switch is told to be from now on; what is not named stays.

    Attributes:
        settings: Fields of ``SwitchConfig`` other than the following.
        ports: By number, ``None`` for as at first.
        mirrors: By name, ``None`` for none.
        ahead: Also numbers where nothing is plugged in yet.
        lldp: Whether it tells its neighbours of itself; ``None`` for as before.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    ports: Mapping[int, PortConfig | None] = field(default_factory=dict)
    mirrors: Mapping[str, MirrorSession | None] = field(default_factory=dict)
    ahead: bool = False
    lldp: bool | None = None

    def of(self, config: SwitchConfig) -> SwitchConfig:
        """Return what a switch of a configuration becomes.

        Raises:
            ValueError: It cannot be all of this.
        """
        mirrors: dict[str, MirrorSession | None] = {each.name: each for each in config.mirrors}
        for name, session in self.mirrors.items():
            if session is not None and session.name != name:
                raise ValueError(f"mirror {name}: its name is {session.name}")
            mirrors[name] = session
        changed = dataclasses.replace(
            config,
            **self.settings,
            ports={**config.ports, **{number: port or PortConfig() for number, port in self.ports.items()}},
            mirrors=tuple(each for each in mirrors.values() if each is not None),
        )
        return settled(changed)

    def check_attached(self, config: SwitchConfig, attached: Collection[int]) -> None:
        """Refuse numbers that stand for nothing, unless ``ahead`` says that they will.

        Args:
            config: What the switch is told to be so far; a number that has a setting is known.
            attached: Numbers of the ports that there are.

        Raises:
            SwitchError: Names them all.
        """
        wanted = {number for number, port in self.ports.items() if port not in (None, PortConfig())}
        for session in self.mirrors.values():
            if session is not None and session not in config.mirrors:
                wanted |= {session.destination, *session.ports}
        unknown = wanted - config.ports.keys() - set(attached)
        if unknown and not self.ahead:
            there = f"there are {ports_text(attached)}" if attached else "there are none"
            raise SwitchError(
                f"nothing is plugged in at port {ports_text(unknown)} ({there}); "
                "--ahead sets it for a guest that is still to come"
            )


def settled(config: SwitchConfig) -> SwitchConfig:
    """Return a configuration without the ports of which it says nothing."""
    ports = {number: port for number, port in config.ports.items() if port != PortConfig()}
    return config if ports == config.ports else dataclasses.replace(config, ports=ports)
