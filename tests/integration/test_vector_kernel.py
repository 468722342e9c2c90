"""A newer kernel, without the legacy transports, beside an older one: ``make kernel`` builds it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import bring_up, ping, running_switch, shell
from integration.peers.uml_kernel import running_guest, vector_kernel
from umlab.guest.cmdline import BessNic, DaemonNic

pytestmark = [pytest.mark.integration, pytest.mark.slow]


async def test_vector_only_kernel_reaches_a_kernel_on_the_daemon_transport(short_dir: Path) -> None:
    kernel = vector_kernel()
    if kernel is None:
        pytest.skip("there is no newer kernel; run `make kernel`")
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        old = await stack.enter_async_context(
            running_guest(short_dir, "old", nics=(DaemonNic(str(short_dir / "lan.ctl")),))
        )
        new = await stack.enter_async_context(
            running_guest(
                short_dir, "new", kernel=kernel, nics=(BessNic(str(short_dir / "lan.bess"), mtu=1500),)
            )
        )
        assert await shell(old, "uname -r") != await shell(new, "uname -r")
        await bring_up(old, "eth0", "10.0.0.1")
        await bring_up(new, "vec0", "10.0.0.2")

        await ping(old, "10.0.0.2")
        await ping(new, "10.0.0.1")

        assert len(switch.fdb()) == 2
