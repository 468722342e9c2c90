"""What real kernels say about themselves, and that it is true."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import running_switch, shell
from integration.peers.uml_kernel import debian_kernel, running_guest, vector_kernel
from support.require import require_program
from umlab.errors import LabError
from umlab.guest.cmdline import BessNic, DaemonNic
from umlab.guest.kernel.config import read_kernel_config, transports_of

pytestmark = [pytest.mark.integration, pytest.mark.any_user]


def test_debians_kernel_has_every_transport() -> None:
    config = read_kernel_config(debian_kernel())
    assert config["CONFIG_VLAN_8021Q"] == "m"
    assert len(config) > 1000
    support = transports_of(config)
    assert {each.kind for each in support} >= {"daemon", "bess", "tap", "l2tpv3", "gre", "vde"}
    assert {each.kind: each.missing for each in support if each.missing} == {"vec-vde": ("Linux 6.12",)}


async def test_transport_that_a_kernel_says_it_has_makes_a_nic(short_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running_switch(short_dir))
        nics = (DaemonNic(str(short_dir / "lan.ctl")), BessNic(str(short_dir / "lan.bess")))
        guest = await stack.enter_async_context(running_guest(short_dir, nics=nics))
        assert set((await shell(guest, "ls /sys/class/net")).split()) >= {"eth0", "vec0"}


@pytest.mark.slow
def test_newer_kernel_lacks_the_daemon_transport() -> None:
    kernel = vector_kernel()
    if kernel is None:
        pytest.skip("there is no newer kernel; run `make kernel`")
    missing = {each.kind: each.missing for each in transports_of(read_kernel_config(kernel))}
    assert "CONFIG_UML_NET_DAEMON" in missing["daemon"]
    assert {missing[kind] for kind in ("bess", "tap", "l2tpv3", "gre", "vec-vde")} == {()}


def test_busybox_is_no_kernel() -> None:
    with pytest.raises(LabError, match="is not a User Mode Linux kernel"):
        read_kernel_config(str(require_program("busybox")))
