"""``umlab guest device``: what is plugged into a running guest."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli.option import AsJson, GuestName, Watch, WatchCommand
from umlab.cli.output import Output
from umlab.cli.page import Page, Table, present

if TYPE_CHECKING:
    from umlab.daemon.view import DeviceView

app = typer.Typer(help="Devices of a running guest.", no_args_is_help=True)

Device = Annotated[
    str, typer.Argument(metavar="DEVICE", help="Such as eth0, vec0, ubdb or con1.", show_default=False)
]

_LS_EPILOG = """
Examples:

  umlab guest device ls left
"""

_SHOW_EPILOG = """
Examples:

  umlab guest device show left mem
"""

_SET_EPILOG = """
Examples:

  umlab guest device set left eth1 daemon,,unix,/tmp/net1.ctl

  umlab guest device set ring/left vec0 transport=bess,dst=/tmp/net1.bess
"""

_RM_EPILOG = """
Examples:

  umlab guest device rm left eth1
"""


@app.command("ls", cls=WatchCommand, epilog=_LS_EPILOG)
def ls(name: GuestName, as_json: AsJson = False, watch: Watch = None) -> None:
    """List the devices that a guest's kernel has."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        present(lambda: _page(lab, guest, client.devices(guest)), as_json=as_json, watch=watch)


@app.command("show", cls=WatchCommand, epilog=_SHOW_EPILOG)
def show(name: GuestName, device: Device, as_json: AsJson = False, watch: Watch = None) -> None:
    """Show a device, as the guest's kernel describes it."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        present(lambda: _page(lab, guest, [client.device(guest, device)]), as_json=as_json, watch=watch)


@app.command("set", epilog=_SET_EPILOG)
def set_(
    name: GuestName,
    device: Device,
    setting: Annotated[
        str,
        typer.Argument(
            metavar="SETTING", help="As behind the sign on the kernel's command line.", show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Plug a device in, or change it."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        changed = client.put_device(guest, device, setting).changed
    _print_change(lab, guest, device, changed, "plugged in", as_json)


@app.command("rm", epilog=_RM_EPILOG)
def rm(name: GuestName, device: Device, as_json: AsJson = False) -> None:
    """Unplug a device."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        changed = client.remove_device(guest, device).changed
    _print_change(lab, guest, device, changed, "unplugged", as_json)


def _page(lab: str, guest: str, devices: list[DeviceView]) -> Page:
    from umlab.guest.console import escape

    records = [{"lab": lab, "guest": guest, **dataclasses.asdict(device)} for device in devices]
    rows = [(escape(each.name.encode()), escape(each.setting.encode())) for each in devices]
    return Page(records, [Table(("DEVICE", "SETTING"), rows)] if rows else ["no device"])


def _print_change(lab: str, guest: str, device: str, changed: bool, did: str, as_json: bool) -> None:
    text = f"{guest}: {device} {did}" if changed else f"{guest}: {device}: nothing to do"
    record = {"lab": lab, "guest": guest, "device": device, "changed": changed}
    Output(as_json=as_json).record(record, text)
