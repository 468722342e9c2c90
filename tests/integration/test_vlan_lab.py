"""VLANs as a user has them: guests of a lab, told apart and brought together from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab, TypedShell
from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled
from umlab.guest.cmdline import FdNic, GuestSpec, TinyRoot

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

UMLAB = Path(sys.executable).with_name("umlab")
ADDRESS = {"one": "10.0.0.1", "two": "10.0.0.2"}


def described(name: str) -> GuestSpec:
    return GuestSpec(name, debian_kernel(), nics=(FdNic("lan"),), root=TinyRoot(("8021q",)))


def tell(*words: str) -> None:
    """Tell some ports of the switch what they are."""
    command = [str(UMLAB), "switch", "set", "lan", "--ports", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)


def test_guests_are_told_apart_and_brought_together_while_they_run() -> None:
    with BackgroundLab(guests=tuple(map(described, ADDRESS))) as lab:
        lab.wait_ready()
        one, two = (TypedShell(lab, name) for name in ADDRESS)
        for shell, name in ((one, "one"), (two, "two")):
            shell.ask(f"ip addr add {ADDRESS[name]}/24 dev vec0; ip link set vec0 up")
        reached, lost = "3 packets received", "0 packets received"
        ping = f"ping -A -c 3 -W 10 {ADDRESS['two']}"
        assert reached in one.ask(ping)

        tell("1", "--access", "10")
        tell("2", "--access", "20")
        assert lost in one.ask(f"ping -c 1 -W 1 {ADDRESS['two']}")
        tell("1-2", "--access", "10")
        assert reached in one.ask(ping)

        # The other guest has the VLAN with a tag from now on, and what it says without is of another one.
        tell("2", "--trunk", "10,20", "--native", "30")
        assert lost in one.ask(f"ping -c 1 -W 1 {ADDRESS['two']}")
        two.ask("ip addr flush dev vec0; ip link add link vec0 name vec0.10 type vlan id 10")
        two.ask(f"ip addr add {ADDRESS['two']}/24 dev vec0.10; ip link set vec0.10 up")
        assert reached in one.ask(ping)
        assert {(entry.vid, entry.port_no) for entry in lab.client.fdb("lan")} >= {(10, 1), (10, 2)}
        tell("1-2", "--transparent")
        assert lost in one.ask(f"ping -c 1 -W 1 {ADDRESS['two']}")
