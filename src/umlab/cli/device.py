"""``umlab guest device``: what is plugged into a running guest."""

from __future__ import annotations

import dataclasses
import enum
import os
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli.option import AsJson, GuestName, Watch, WatchCommand
from umlab.cli.output import Output
from umlab.cli.page import Page, Table, present

if TYPE_CHECKING:
    from umlab.daemon.device_order import DeviceOrder
    from umlab.daemon.view import DeviceView

app = typer.Typer(help="Devices of a running guest.", no_args_is_help=True)

Device = Annotated[
    str, typer.Argument(metavar="DEVICE", help="Such as eth0, vec0, ubdb, con2 or mem.", show_default=False)
]
Down = Annotated[
    bool, typer.Option("--down", help="Set a NIC down in the guest first, which has to have our agent.")
]


class Kind(enum.StrEnum):
    """What can be added."""

    NIC = "nic"
    DISK = "disk"
    CONSOLE = "console"


class Transport(enum.StrEnum):
    """How a NIC is plugged into a switch."""

    DAEMON = "daemon"
    BESS = "bess"


_LS_EPILOG = """
Examples:

  umlab guest device ls left
"""

_SHOW_EPILOG = """
Examples:

  umlab guest device show left mem
"""

_ADD_EPILOG = """
Examples:

  umlab guest device add left nic --switch lan

  umlab guest device add left nic --switch lan --transport bess --mtu 9000

  umlab guest device add left disk --file debian.img --cow left.cow
"""

_SET_EPILOG = """
Examples:

  umlab guest device set left eth1 daemon,,unix,/tmp/net1.ctl

  umlab guest device set ring/left vec0 transport=bess,dst=/tmp/net1.bess

  umlab guest device set left mem 96M
"""

_RM_EPILOG = """
Examples:

  umlab guest device rm left eth1 --down

  umlab guest device rm left ubdb
"""

_RESET_EPILOG = """
Examples:

  umlab guest device reset left vec0
"""

_HEADINGS = ("DEVICE", "KIND", "SETTING", "PORT")


@app.command("ls", cls=WatchCommand, epilog=_LS_EPILOG)
def ls(name: GuestName, as_json: AsJson = False, watch: Watch = None) -> None:
    """List the devices that a guest is known to have, and where its NICs are plugged in."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        present(lambda: _page(lab, guest, client.devices(guest)), as_json=as_json, watch=watch)


@app.command("show", cls=WatchCommand, epilog=_SHOW_EPILOG)
def show(name: GuestName, device: Device, as_json: AsJson = False, watch: Watch = None) -> None:
    """Show a device."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        present(lambda: _page(lab, guest, [client.device(guest, device)]), as_json=as_json, watch=watch)


@app.command("add", epilog=_ADD_EPILOG)
def add(
    name: GuestName,
    kind: Annotated[Kind, typer.Argument(help="What is plugged in.", show_default=False)],
    switch: Annotated[str | None, typer.Option(help="Of a NIC: the lab's switch.")] = None,
    transport: Annotated[
        Transport | None,
        typer.Option(help="Of a NIC: daemon for ethN, bess for vecN.", show_default="daemon"),
    ] = None,
    mac: Annotated[str | None, typer.Option(help="Of a NIC: its address.", show_default="random")] = None,
    mtu: Annotated[int | None, typer.Option(help="Of a NIC on bess.", show_default="1500")] = None,
    file: Annotated[str | None, typer.Option(help="Of a disk: the image.")] = None,
    cow: Annotated[
        str | None, typer.Option(help="Of a disk: where its changes go, made if it is not there.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Of a disk: it cannot be written.")] = False,
    to: Annotated[str | None, typer.Option(help="Of a console: its channel.", show_default="pts")] = None,
    as_json: AsJson = False,
) -> None:
    """Plug a NIC, a disk or a console into a running guest, and print the name that it has there."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    given: dict[Kind, dict[str, object]] = {
        Kind.NIC: {"--switch": switch, "--transport": transport, "--mac": mac, "--mtu": mtu},
        Kind.DISK: {"--file": file, "--cow": cow, "--read-only": read_only or None},
        Kind.CONSOLE: {"--to": to},
    }
    for other, options in given.items():
        for option, value in options.items():
            if other is not kind and value is not None:
                raise typer.BadParameter(f"{option} is for a {other}, not for a {kind}")
    if kind is Kind.NIC:
        order = _nic(switch, transport, mac, mtu)
    elif kind is Kind.DISK:
        order = _disk(file, cow, read_only)
    else:
        order = _console(to)
    lab, guest = guest_place(name)
    with Client(lab) as client:
        device = client.add_device(guest, order)
    record = {"lab": lab, "guest": guest, **dataclasses.asdict(device)}
    Output(as_json=as_json).record(record, f"{guest}: {device.name} plugged in")


@app.command("set", epilog=_SET_EPILOG)
def set_(
    name: GuestName,
    device: Device,
    setting: Annotated[
        str,
        typer.Argument(
            metavar="SETTING",
            help="As behind the sign on the kernel's command line; of mem, how much there is.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Plug a device in under a name, or set how much memory there is."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client
    from umlab.guest.device import parse_device

    lab, guest = guest_place(name)
    with Client(lab) as client:
        changed = client.put_device(guest, device, setting).changed
    # As the guest calls it: letters behind a disk's name are of its setting.
    own = str(parse_device(device)[0])
    _print_change(lab, guest, own, changed, f"is {setting}" if own == "mem" else "plugged in", as_json)


@app.command("rm", epilog=_RM_EPILOG)
def rm(name: GuestName, device: Device, down: Down = False, as_json: AsJson = False) -> None:
    """Unplug a device, which must not be in use: an interface down, a disk not mounted."""
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        changed = client.remove_device(guest, device, down=down).changed
    _print_change(lab, guest, device, changed, "unplugged", as_json)


@app.command("reset", epilog=_RESET_EPILOG)
def reset(name: GuestName, device: Device, down: Down = False, as_json: AsJson = False) -> None:
    """Unplug a NIC and plug it again as it was, where it is connected to nothing any more.

    The guest has to give it its addresses anew.
    """
    from umlab.cli.target import guest_place
    from umlab.client.sync import Client

    lab, guest = guest_place(name)
    with Client(lab) as client:
        changed = client.reset_device(guest, device, down=down).changed
    _print_change(lab, guest, device, changed, "plugged in anew", as_json)


def _nic(switch: str | None, transport: Transport | None, mac: str | None, mtu: int | None) -> DeviceOrder:
    from umlab.daemon.device_order import DeviceOrder, SwitchNic

    if switch is None:
        raise typer.BadParameter("a nic needs --switch")
    return DeviceOrder(nic=SwitchNic(switch, None if transport is None else transport.value, mac, mtu))


def _disk(file: str | None, cow: str | None, read_only: bool) -> DeviceOrder:
    from umlab.daemon.device_order import DeviceOrder
    from umlab.guest.device import Disk

    if file is None:
        raise typer.BadParameter("a disk needs --file")
    image = os.path.abspath(file)
    if cow is None:
        return DeviceOrder(disk=Disk(image, read_only=read_only))
    return DeviceOrder(disk=Disk(os.path.abspath(cow), image, read_only))


def _console(channel: str | None) -> DeviceOrder:
    from umlab.daemon.device_order import DeviceOrder

    return DeviceOrder(console=channel or "pts")


def _page(lab: str, guest: str, devices: list[DeviceView]) -> Page:
    records = [{"lab": lab, "guest": guest, **dataclasses.asdict(device)} for device in devices]
    rows = [_row(device) for device in devices]
    return Page(records, [Table(_HEADINGS, rows, ("KIND",))] if rows else ["no device"])


def _row(device: DeviceView) -> tuple[str, ...]:
    from umlab.guest.console import escape

    port = "-" if device.switch is None else f"{device.switch}/{device.port_no}"
    return (escape(device.name.encode()), device.kind, escape(device.setting.encode()) or "?", port)


def _print_change(lab: str, guest: str, device: str, changed: bool, did: str, as_json: bool) -> None:
    text = f"{guest}: {device} {did}" if changed else f"{guest}: {device}: nothing to do"
    record = {"lab": lab, "guest": guest, "device": device, "changed": changed}
    Output(as_json=as_json).record(record, text)
