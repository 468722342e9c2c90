"""Which port is found to be which NIC's, and which is not guessed."""

from __future__ import annotations

from umlab.client.nic import GuestNic, PluggedPort, match_nics
from umlab.daemon.view import PortView
from umlab.guest.nic import CommandLineNic, parse_nics

MAC, OTHER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
SOCKETS = frozenset({("daemon", "/lan.ctl"), ("bess", "/lan.bess")})


def port(
    port_no: int,
    kind: str = "daemon",
    macs: tuple[str, ...] = (),
    switch: str = "lan",
    guest: str | None = None,
) -> PluggedPort:
    view = PortView(port_no, kind, "", "up", 7, 1000, "me", guest, guest, macs, len(macs), 0, {})
    sockets = SOCKETS if switch == "lan" else frozenset({("daemon", f"/{switch}.ctl")})
    return PluggedPort("lan", switch, view, sockets)


def ports_of(
    words: list[str], *ports: PluggedPort, told: dict[str, str] | None = None
) -> list[tuple[str, str]]:
    """Return name and port, as far as known, of each NIC."""
    matched = match_nics(parse_nics(words), ports, told or {})
    return [(nic.name or "?", nic.port or "?") for nic in matched]


def test_nic_is_described_as_far_as_known() -> None:
    (nic, _) = nics = parse_nics(["eth0=daemon,,unix,/lan.ctl", f"vec0:transport=l2tpv3,mac={OTHER_MAC}"])
    assert nic == CommandLineNic("eth0", "daemon,,unix,/lan.ctl", "daemon", None, "/lan.ctl")
    assert match_nics(nics, [port(3, macs=(MAC,)), port(4, "tap", switch="core")], {}) == (
        GuestNic("eth0", "daemon", "daemon,,unix,/lan.ctl", "lan:3", MAC),
        GuestNic("vec0", "l2tpv3", f"transport=l2tpv3,mac={OTHER_MAC}", None, OTHER_MAC),
        GuestNic(None, "tap", None, "lan/core:4", None),
    )


def test_address_tells_the_nic() -> None:
    words = [f"eth0=daemon,{MAC}", f"eth1=daemon,{OTHER_MAC}"]
    swapped = [port(1, macs=(OTHER_MAC,)), port(2, macs=("02:00:00:00:00:09", MAC))]
    assert ports_of(words, *swapped) == [("eth0", "lan:2"), ("eth1", "lan:1")]


def test_switch_tells_the_nic() -> None:
    words = ["eth0=daemon,,unix,/core.ctl", "eth1=daemon,,unix,/lan.ctl", "vec0:transport=bess,dst=/lan.bess"]
    ports = [port(1), port(2, "bess"), port(1, switch="core")]
    assert ports_of(words, *ports) == [
        ("eth0", "lan/core:1"),
        ("eth1", "lan:1"),
        ("vec0", "lan:2"),
    ]


def test_inherited_socket_is_told_by_its_kind() -> None:
    assert ports_of(["vec0:transport=fd,fd=5"], port(1, "fd")) == [("vec0", "lan:1")]


def test_what_could_be_either_is_not_guessed() -> None:
    words = ["eth0=daemon,,unix,/lan.ctl", "eth1=daemon,,unix,/lan.ctl"]
    assert ports_of(words, port(1)) == [("eth0", "?"), ("eth1", "?"), ("?", "lan:1")]
    assert ports_of(words[:1], port(1), port(2)) == [("eth0", "?"), ("?", "lan:1"), ("?", "lan:2")]
    # A NIC of another switch than ours is at none of our ports.
    assert ports_of(["eth0=daemon,,unix,/other.ctl"], port(1)) == [("eth0", "?"), ("?", "lan:1")]
    # Unless one of them is known.
    assert ports_of(words, port(1), port(2), told={"eth1": "lan:1"}) == [("eth0", "lan:2"), ("eth1", "lan:1")]


def test_port_is_that_of_its_process_or_of_the_guest_that_the_lab_names() -> None:
    assert port(1).is_of(None, "x", 7)
    assert not port(1).is_of(None, "x", 8)
    assert port(1, guest="left").is_of("lan", "left", 8)
    assert not port(1, guest="left").is_of("lan", "right", 7)
    assert not port(1, guest="left").is_of("ring", "left", 8)
