"""From what a lab file describes to what a daemon and a kernel are told."""

from __future__ import annotations

from umlab.daemon.spec import SwitchSpec, attached_nic
from umlab.guest.cmdline import DiskRoot, GuestSpec, HostRoot, Nic, Root, TinyRoot
from umlab.lab.port import mirror_sessions, port_configs
from umlab.lab.schema import Guest, Segment
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import Access


def switch_spec(name: str, segment: Segment) -> SwitchSpec:
    """Return the switch of a segment."""
    config = SwitchConfig(
        hub=segment.hub,
        ageing_time_ns=segment.ageing_time,
        max_frame=segment.max_frame,
        fdb_capacity=segment.fdb_capacity,
        ports=port_configs(segment.ports),
        mirrors=mirror_sessions(segment.mirrors),
    )
    users, groups = (tuple(sorted(set(ids))) for ids in (segment.allow_users, segment.allow_groups))
    access = Access(segment.mode, segment.group, users, groups)
    return SwitchSpec(name, config, segment.listen, access, segment.recorder, segment.lldp)


def guest_spec(name: str, guest: Guest, switches: dict[str, SwitchSpec]) -> GuestSpec:
    """Return the guest that is described, its NICs on the sockets of their segments.

    Args:
        name: The guest's name.
        guest: As a schema has accepted it: its segments are there, and listen for it.
        switches: The switches of the segments.
    """
    nics: list[Nic] = []
    for nic in guest.nics:
        made = attached_nic(nic.transport, nic.segment, switches[nic.segment].listen, nic.mac, nic.mtu)
        assert made is not None
        nics.append(made)
    root: Root = TinyRoot(guest.modules)
    if guest.root == "host":
        root = HostRoot(guest.modules)
    elif guest.root is not None:
        root = DiskRoot(guest.root.disk, guest.root.backing, modules=guest.modules)
    return GuestSpec(
        umid=name,
        kernel=guest.kernel,
        memory=guest.memory,
        root=root,
        nics=tuple(nics),
        extra=guest.extra,
        writable=guest.writable,
        landlock=guest.landlock,
    )
