"""Where a guest's NICs are plugged in: told where it follows from what a switch knows, else not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from umlab.daemon.nic_port import nic_port
from umlab.daemon.switch_set import SwitchSet
from umlab.guest.cmdline import FdNic, GuestSpec

PID = 4711
MAC = "02:00:00:00:00:0a"
SPEC = GuestSpec("g", nics=(FdNic("lan"),))


class Switches:
    """As much of switches as is looked at: one of the name ``lan``, and one beside it."""

    def __init__(self, *ports: tuple[int, str, int | None], fdb: dict[str, int] | None = None) -> None:
        self._ports = ports
        self._fdb = fdb or {}

    def names(self) -> list[str]:
        return ["lan", "other"]

    def service(self, name: str) -> Any:
        ports = [
            SimpleNamespace(port_no=number, kind=kind, peer=None if pid is None else SimpleNamespace(pid=pid))
            for number, kind, pid in self._ports
        ]
        places = {"daemon": f"/r/{name}.ctl,/r/{name}.data", "bess": f"/r/{name}.bess"}
        listeners = [SimpleNamespace(kind=kind, where=where) for kind, where in places.items()]
        return SimpleNamespace(ports=lambda: ports if name == "lan" else [], listeners=listeners)

    def fdb(self, name: str) -> list[Any]:
        return [SimpleNamespace(mac=mac, port_no=number) for mac, number in self._fdb.items()]

    def port(self, device: str, **plugged: str) -> tuple[str, int] | None:
        """Return where a device is plugged in."""
        return nic_port(cast(SwitchSet, self), SPEC, PID, plugged, device)


@pytest.mark.parametrize(
    ("kind", "device", "setting"),
    [
        ("daemon", "eth0", "daemon,,unix,/r/lan.ctl"),
        ("bess", "vec1", "transport=bess,dst=/r/x/../lan.bess"),
        ("fd", "vec0", "transport=fd,fd=5"),
    ],
)
def test_only_nic_on_the_only_port(kind: str, device: str, setting: str) -> None:
    strangers = (1, kind, 1), (2, "tap", None), (3, "bess" if kind == "daemon" else "daemon", PID)
    assert Switches(*strangers).port(device, **{device: setting}) is None
    assert Switches(*strangers, (4, kind, PID)).port(device, **{device: setting}) == ("lan", 4)


def test_nics_that_share_a_switch_are_told_by_their_addresses() -> None:
    nics = {"eth0": "daemon,,unix,/r/lan.ctl", "eth1": f"daemon,{MAC.upper()},unix,/r/lan.ctl"}
    ports = (1, "daemon", PID), (2, "daemon", PID)
    assert Switches(*ports).port("eth0", **nics) is None
    assert Switches(*ports).port("eth1", **nics) is None
    assert Switches(*ports, fdb={MAC: 2}).port("eth1", **nics) == ("lan", 2)
    # Somebody else uses its address.
    assert Switches(*ports, fdb={MAC: 3}).port("eth1", **nics) is None
    # The only port may be the other one's.
    assert Switches(ports[0]).port("eth0", **nics) is None


def test_what_is_on_no_switch_of_the_lab_has_no_port() -> None:
    switches = Switches((1, "daemon", PID))
    for device, setting in (
        ("eth0", "mcast"),
        ("eth0", "daemon,,unix,/elsewhere"),
        ("eth0", "nonsense"),
        ("vec3", "transport=fd,fd=9"),
        ("con2", "pts"),
    ):
        assert switches.port(device, **{device: setting}) is None
    assert switches.port("eth9") is None
