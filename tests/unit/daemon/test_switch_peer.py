"""Who is behind a port: only those who may be, and by which umid they are known."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from umlab.daemon.switch import SwitchService
from umlab.errors import SwitchError
from umlab.switch.model import Framing, Link, SwitchConfig
from umlab.transports.contract import Access, Peer, Session, nothing_to_close

NOBODY = Peer(500, 65534, 65534, None, (7, 8))


@pytest.fixture
async def switch() -> AsyncIterator[SwitchService]:
    """Yield a running switch for user 1 and group 8."""
    service = SwitchService("lan", SwitchConfig(), (), access=Access(uids=(1,), gids=(8,)))
    await service.start()
    yield service
    await service.stop()


def attach(switch: SwitchService, peer: Peer | None) -> int:
    """Open a session of a peer and return its port number."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        link = Link(ours.fileno(), Framing.SEQPACKET)
        port_no = switch.session_opened(Session("plug", link, peer, "", nothing_to_close))
        ours.detach()
    return port_no


async def test_who_is_not_on_the_list_is_told_what_would_let_it(switch: SwitchService) -> None:
    reason = "user nobody may not attach to switch lan; start it with --allow-user nobody"
    with pytest.raises(SwitchError, match=reason):
        attach(switch, replace(NOBODY, groups=(7,)))
    assert switch.ports() == []
    # By one of its groups it may, and so may who has no credentials.
    for peer in (NOBODY, None):
        attach(switch, peer)
    assert [port.peer for port in switch.ports()] == [NOBODY, None]


async def test_umid_of_a_port_is_found_out_once(switch: SwitchService) -> None:
    command = [sys.executable, "-c", "input(1)", "umid=left"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # It has its command line a moment after it was started.
        assert process.stdout is not None
        assert process.stdout.read(1)
        port_no = attach(switch, Peer(process.pid, os.geteuid(), 0, None))
        assert [port.umid for port in switch.ports()] == ["left"]
        process.communicate(b"\n")
    assert [port.umid for port in switch.ports()] == ["left"]
    # Another session on the same port is asked anew.
    switch.remove_port(port_no)
    assert attach(switch, None) == port_no
    assert [port.umid for port in switch.ports()] == [None]
