"""A switch with real guests that know VLANs, bridges and bonds, which the tests of a module share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from integration.peers.lan import running_switch, shell
from integration.peers.uml_kernel import running_guest
from integration.peers.uplink import Plugged
from support.deadline import scaled, wait_until_async
from support.leaks import TAG_VARIABLE
from support.require import require_program
from umlab.daemon.guest import GuestService
from umlab.daemon.switch import SwitchService
from umlab.guest.cmdline import BessNic, DaemonNic, Nic, TinyRoot
from umlab.switch.model import MirrorSession, PortConfig
from umlab.switch.vlan import PortVlan

#: What each guest offers over HTTP: much, and the beginning of it.
MUCH, SOME = "much", "some"
#: What else a test may have made in a guest is taken away by this.
_CLEAR = """
cd /sys/class/net
for device in *; do
    case $device in
    lo | eth[0-9] | vec[0-9] | bonding_masters) ;;
    *) [ ! -e "$device" ] || ip link del "$device" 2>/dev/null ;;
    esac
done
for device in eth[0-9] vec[0-9]; do
    [ ! -e "$device" ] || { ip addr flush dev "$device"; ip neigh flush dev "$device"; }
done
true
"""
_PREPARE = f"""
mount -t hostfs -o / none /mnt
# What IPv6 says by itself would be among what the tests wait for.
for place in /proc/sys/net/ipv6/conf/all /proc/sys/net/ipv6/conf/default; do
    [ ! -d $place ] || echo 1 >$place/disable_ipv6
done
cd /tmp
dd if=/dev/urandom of={MUCH} bs=64k count=192 2>/dev/null
head -c 2000000 {MUCH} >{SOME}
httpd -p 8000 -h /tmp
"""


class Lan:
    """A switch and guests, all their NICs up.

    Args:
        base: The directory of the switch's sockets.
        switch: The switch.

    Attributes:
        switch: The switch.
        guests: The guests, by name.
        sums: Sums of what each guest offers, by its name and the file's.
    """

    def __init__(self, base: Path, switch: SwitchService) -> None:
        self.switch = switch
        self.guests: dict[str, GuestService] = {}
        self.sums: dict[tuple[str, str], str] = {}
        self._base = base

    async def run(self, name: str, command: str) -> str:
        """Run a command in a guest that must succeed, and return its output."""
        return await shell(self.guests[name], command)

    async def fails(self, name: str, command: str) -> None:
        """Run a command in a guest that must not succeed."""
        result = await self.guests[name].run(command, scaled(30))
        assert result.status != 0, f"{name}: {command}: {result.output!r}"

    async def clear(self) -> None:
        """Take away what a test has made, and make all ports transparent."""
        self.configure({})
        self.switch.engine.flush_fdb()
        await asyncio.gather(*(self.run(name, _CLEAR) for name in self.guests))

    def configure(
        self, ports: Mapping[int, PortVlan | PortConfig], mirrors: tuple[MirrorSession, ...] = ()
    ) -> None:
        """Tell the switch what its ports are from now on."""
        told = {
            number: port if isinstance(port, PortConfig) else PortConfig(port)
            for number, port in ports.items()
        }
        self.switch.configure(replace(self.switch.config, ports=told, mirrors=mirrors))

    async def ping(self, name: str, *addresses: str, count: int = 3, size: int = 56) -> None:
        """Let a guest ping addresses, each time as soon as it has an answer; every ping must be answered."""
        for address in addresses:
            said = await self.run(name, f"ping -A -q -c {count} -s {size} -W 10 {address}")
            assert f"{count} packets transmitted, {count} packets received" in said, said
            assert "duplicates" not in said, said

    async def fetch(self, name: str, address: str, other: str, what: str = SOME) -> None:
        """Let a guest fetch what another one offers at an address; it must arrive as it is."""
        got = await self.run(name, f"wget -q -O - http://{address}:8000/{what} | md5sum")
        assert got == self.sums[other, what]

    @asynccontextmanager
    async def probe(self) -> AsyncIterator[Plugged]:
        """Attach a neighbour without a kernel, on the next port, for the length of a block."""
        count = len(self.switch.ports())
        try:
            with Plugged(self._base / "lan.bess") as probe:
                await self._ports(count + 1)
                yield probe
        finally:
            await self._ports(count)

    async def bring_up(self, name: str, device: str) -> None:
        """Bring a NIC up, which may get a port by that."""
        count = len(self.switch.ports())
        await self.run(name, f"ip link set {device} up")
        if device.startswith("vec"):
            await self._ports(count + 1)

    async def _ports(self, count: int) -> None:
        await wait_until_async(lambda: len(self.switch.ports()) == count, 10, f"{count} ports")


@asynccontextmanager
async def running_lan(nics: Mapping[str, Sequence[str]], *modules: str) -> AsyncIterator[Lan]:
    """Run a switch and guests with programs of the host.

    Args:
        nics: By the guest's name, its NICs: ``vec`` on bess, or for the first guest ``eth`` on the daemon
            transport, which is plugged in at boot.  Their ports are numbered in this order, from 1.
        modules: What the guests' kernels load.
    """
    base = Path(tempfile.mkdtemp(prefix="uml"))
    try:
        async with contextlib.AsyncExitStack() as stack:
            switch = await stack.enter_async_context(running_switch(base))
            kinds: dict[str, Nic] = {
                "eth": DaemonNic(str(base / "lan.ctl")),
                "vec": BessNic(str(base / "lan.bess")),
            }
            lan = Lan(base, switch)

            async def boot(name: str) -> None:
                plugged = tuple(kinds[kind] for kind in nics[name])
                running = running_guest(base, name, nics=plugged, root=TinyRoot(modules))
                lan.guests[name] = await stack.enter_async_context(running)
                await lan.run(name, _PREPARE)
                for what in (MUCH, SOME):
                    lan.sums[name, what] = await lan.run(name, f"md5sum </tmp/{what}")

            with _untagged():
                async with asyncio.TaskGroup() as booting:
                    for name in nics:
                        booting.create_task(boot(name))
            for name, its in nics.items():
                for number, kind in enumerate(its):
                    await lan.bring_up(name, f"{kind}{number}")
            yield lan
    finally:
        shutil.rmtree(base)


def host_program(name: str) -> str:
    """Return how a guest runs a program of the host, with the host's libraries."""
    return f"chroot /mnt {require_program(name)}"


@contextlib.contextmanager
def _untagged() -> Iterator[None]:
    """Start guests without the mark by which a test's own processes are found: tests share them."""
    tag = os.environ.pop(TAG_VARIABLE)
    try:
        yield
    finally:
        os.environ[TAG_VARIABLE] = tag
