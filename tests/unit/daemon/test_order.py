"""An order is the same after its way to a daemon in the background."""

from __future__ import annotations

from dataclasses import replace

import pytest

from umlab.daemon.order import LabOrder, order_from_json, order_to_json
from umlab.daemon.spec import SwitchSpec
from umlab.errors import LabError
from umlab.guest.cmdline import BessNic, DaemonNic, DiskRoot, GuestSpec, TinyRoot
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import Access

SWITCH = SwitchSpec("lan", SwitchConfig(hub=True, max_frame=1518), ("daemon:/x/ctl,/x/data", "bess:/x/bess"))


@pytest.mark.parametrize(
    "order",
    [
        LabOrder("empty"),
        LabOrder("lan", (replace(SWITCH, access=Access(0o660, 5, (1, 2), (3,))),), alone=True),
        LabOrder(
            "lan",
            (SWITCH,),
            (
                GuestSpec(
                    "tiny", root=TinyRoot(("overlay",)), nics=(DaemonNic("/x/ctl", data_path="/x/data"),)
                ),
                GuestSpec("disk", root=DiskRoot("/x/cow", "/x/image"), nics=(BessNic("/x/bess", mtu=9000),)),
                GuestSpec("free", extra=("quiet",), writable=("/x",), landlock=False),
            ),
        ),
    ],
    ids=lambda order: order.name,
)
def test_order_is_read_as_written(order: LabOrder) -> None:
    assert order_from_json(order_to_json(order).decode()) == order


@pytest.mark.parametrize("text", ["", "[]", '{"name":1}', '{"name":"x","switches":[{"name":"x"}]}'])
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="validation error"):
        order_from_json(text)


def test_guest_that_cannot_be_is_named() -> None:
    with pytest.raises(LabError, match="guest name '-'"):
        order_from_json('{"name":"x","guests":[{"umid":"-"}]}')
