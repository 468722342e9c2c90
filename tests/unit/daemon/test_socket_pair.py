"""The socket pairs of a guest's NICs: whose they are before, while and after it is started."""

from __future__ import annotations

import os
import signal

import pytest

from support.deadline import wait_until_async
from support.kept_lab import KeptLab
from umlab.daemon.socket_pair import SocketPairs
from umlab.daemon.view import PortView
from umlab.errors import NoSuchSwitch, SwitchError
from umlab.guest.cmdline import NIC_FD, BessNic, FdNic, GuestSpec
from umlab.switch.model import MIN_FRAME
from umlab.transports.contract import Peer
from umlab.transports.fd import FdListener

FRAME = "\\377\\377\\377\\377\\377\\377\\002\\0\\0\\0\\0\\001\\210\\265"


def ports(kept: KeptLab, switch: str = "lan") -> list[PortView]:
    return kept.lab.ports(switch)


async def started(kept: KeptLab, *nics: FdNic | BessNic, name: str = "g") -> int:
    await kept.lab.put_guest(kept.spec(name, nics=nics))
    return await kept.ready(name)


@pytest.fixture
async def switches(kept: KeptLab) -> None:
    """Two switches, and a kernel that lists its descriptors and sends a frame on the first NIC's."""
    await kept.lab.put_switch(kept.switch())
    await kept.lab.put_switch(kept.switch(f"bess:{kept.runtime}/w", name="wan"))
    script = kept.kernel.read_text().replace(
        "#!/bin/bash\n", f"#!/bin/bash\n[ ! -e /proc/$$/fd/{NIC_FD} ] || printf '{FRAME}' >&{NIC_FD}\n"
    )
    kept.kernel.write_text(script)


pytestmark = pytest.mark.usefixtures("switches")


class TestGuest:
    async def test_each_nic_is_a_port_that_ends_with_the_guest(self, kept: KeptLab) -> None:
        pid = await started(kept, FdNic("lan"), BessNic("/x"), FdNic("wan"))
        for switch, device in (("lan", "vec0"), ("wan", "vec2")):
            (port,) = ports(kept, switch)
            assert (port.kind, port.detail, port.guest, port.state) == ("fd", f"g {device}", "g", "up")
            assert (port.pid, port.uid) == (pid, os.geteuid())
        await wait_until_async(lambda: ports(kept)[0].counters["rx_frames"] == 1, 10, "its frame")
        assert ports(kept)[0].macs == ("02:00:00:00:00:01",)
        assert kept.lab.guest_set.find("g").plugged["vec2"] == f"transport=fd,fd={NIC_FD + 1}"
        os.killpg(pid, signal.SIGKILL)
        await wait_until_async(lambda: not ports(kept) and not ports(kept, "wan"), 10, "no port")

    async def test_port_goes_when_the_guest_closes_its_end(self, kept: KeptLab) -> None:
        kept.kernel.write_text(kept.kernel.read_text().replace("while read", f"exec {NIC_FD}>&-\nwhile read"))
        await started(kept, FdNic("lan"))
        await wait_until_async(lambda: not ports(kept), 10, "no port, though the guest lives")
        assert kept.lab.guest("g").status is None

    async def test_port_goes_on_with_the_next_daemon(self, kept: KeptLab) -> None:
        pid = await started(kept, FdNic("lan"))
        await wait_until_async(lambda: ports(kept)[0].counters["rx_frames"] == 1, 10, "its frame")
        before = ports(kept)[0]
        await kept.restart()
        (port,) = ports(kept)
        assert (port.port_no, port.kind, port.detail, port.guest) == (before.port_no, "fd", "g vec0", "g")
        os.killpg(pid, signal.SIGKILL)
        await wait_until_async(lambda: not ports(kept), 10, "no port")

    async def test_guest_that_is_started_anew_has_a_new_pair(self, kept: KeptLab) -> None:
        pid = await started(kept, FdNic("lan"))
        os.killpg(pid, signal.SIGKILL)
        await wait_until_async(lambda: kept.lab.guest("g").state == "ended", 10, "its end")
        pid = await started(kept, FdNic("lan"))
        await wait_until_async(lambda: [port.pid for port in ports(kept)] == [pid], 10, "the new one's port")

    async def test_switch_that_is_not_there_starts_nothing(self, kept: KeptLab) -> None:
        with pytest.raises(NoSuchSwitch):
            await started(kept, FdNic("lan"), FdNic("none"))
        assert ports(kept) == []
        assert kept.lab.lab().guests == ()
        await started(kept, FdNic("lan"))

    async def test_guest_without_a_port_is_ended(
        self, kept: KeptLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(self: FdListener, *_: object) -> int:
            raise SwitchError("no port left")

        with monkeypatch.context() as patch:
            patch.setattr(FdListener, "plug", refuse)
            with pytest.raises(SwitchError):
                await started(kept, FdNic("lan"))
        assert kept.lab.lab().guests == ()
        assert kept.link.groups == {}
        await started(kept, FdNic("lan"))


class TestEnds:
    async def test_nothing_stays_open_that_was_not_plugged_in(self, kept: KeptLab) -> None:
        listener = kept.lab.switch_set.service("lan").fd_listener
        spec = GuestSpec("g", nics=(FdNic("lan"), FdNic("lan")))
        with SocketPairs(spec, lambda _: listener) as pairs:
            ends = pairs.guest_ends
            assert len(ends) == 2
        for fd in ends:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)

    async def test_end_of_the_guests_side_is_the_end_of_the_port(self, kept: KeptLab) -> None:
        service = kept.lab.switch_set.service("lan")
        with SocketPairs(GuestSpec("g", nics=(FdNic("lan"),)), lambda _: service.fd_listener) as pairs:
            pairs.plug(4711)
            (port,) = service.ports()
            assert (port.kind, port.detail) == ("fd", "g vec0")
            assert port.peer == Peer(4711, os.geteuid(), os.getegid(), None)
            os.write(pairs.guest_ends[0], bytes(MIN_FRAME))
        await wait_until_async(lambda: not service.ports(), 10, "no port")
