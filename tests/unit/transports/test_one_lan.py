"""A peer of each of QEMU's transports on one switch, on both engines: they are one broadcast domain."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.deadline import wait_until_async
from support.engines import ENGINES
from support.guest_end import BROADCAST, frame, mac
from support.qemu_peer import QemuPeer, free_address
from umlab._clock import MonotonicClock
from umlab.daemon.switch import SwitchService
from umlab.switch.model import SwitchConfig
from umlab.transports.registry import parse_listen

GROUP = "239.192.168.9"


@pytest.mark.parametrize("engine", ENGINES)
async def test_whatever_one_sends_all_others_get(engine: str, short_dir: Path) -> None:
    tcp = free_address(socket.SOCK_STREAM)
    ours, theirs, (_, port) = (free_address(socket.SOCK_DGRAM) for _ in range(3))
    places = [
        f"qemu:{short_dir}/q",
        f"qemu:{tcp[0]}:{tcp[1]}",
        f"dgram:{short_dir}/ours,{short_dir}/theirs",
        f"dgram:{ours[0]}:{ours[1]},{theirs[0]}:{theirs[1]}",
        f"mcast:{GROUP}:{port},127.0.0.1",
    ]
    clock = MonotonicClock()
    service = SwitchService(
        "lan",
        SwitchConfig(),
        map(parse_listen, places),
        engine=ENGINES[engine](SwitchConfig(), clock),
        clock=clock,
    )
    with ExitStack() as stack:
        datagrams = QemuPeer(stack, socket.SOCK_DGRAM, f"{short_dir}/theirs", f"{short_dir}/ours")
        await service.start()
        try:
            member = QemuPeer(stack, socket.SOCK_DGRAM, (GROUP, port), (GROUP, port))
            member.join(GROUP)
            peers = [
                QemuPeer(stack, socket.SOCK_STREAM, None, f"{short_dir}/q"),
                QemuPeer(stack, socket.SOCK_STREAM, None, tcp),
                datagrams,
                QemuPeer(stack, socket.SOCK_DGRAM, theirs, ours),
                member,
            ]
            await wait_until_async(lambda: len(service.ports()) == len(peers), 10, "all ports")
            for number, sender in enumerate(peers):
                for size in (60, 1514, 9018):
                    sent = frame(BROADCAST, mac(number), size)
                    sender.send(sent)
                    if sender is member:
                        assert member.receive() == sent, "as any member hears itself"
                    for peer in peers:
                        assert peer is sender or peer.receive() == sent
            assert len(service.fdb()) == len(peers)
            # Each has an address by now.
            for number, receiver in enumerate(peers):
                for other in range(len(peers)):
                    if other != number:
                        sent = frame(mac(number), mac(other), 1514)
                        peers[other].send(sent)
                        if peers[other] is member:
                            assert member.receive() == sent
                        assert receiver.receive() == sent
            assert not any(any(each.drops.values()) for each in service.snapshot().ports.values())
        finally:
            await service.stop()
    assert [path.name for path in short_dir.iterdir()] == ["theirs"]
