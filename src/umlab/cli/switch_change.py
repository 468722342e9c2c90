"""``umlab switch set`` and ``stop``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from umlab.cli import complete
from umlab.cli.option import AsJson, SwitchName
from umlab.cli.output import Output

if TYPE_CHECKING:
    from umlab.client.sync import Client
    from umlab.daemon.switch_change import SwitchChange
    from umlab.daemon.view import SwitchView

SET_EPILOG = """
Settings: hub=on|off, ageing_time=TIME, max_frame=BYTES, fdb_capacity=ADDRESSES, egress_queue_depth=FRAMES,
lldp=on|off. A TIME is a number and its unit: ms, s, min or h.

PORTS and VIDS are numbers and ranges with commas between them, such as 1-12,20. A port without a VLAN is
transparent: it does not look at tags. Settings belong to the number, whatever is plugged in there.

Examples:

  umlab switch set lan hub=on

  umlab switch set ring/a ageing_time=100s max_frame=1518

  umlab switch set lan --ports 1-12,20 --access 10

  umlab switch set lan --ports 24 --trunk 10,20-29 --native 1 --dry-run

  umlab switch set lan --ports 5 --pvid 1 --tagged 10 --untagged 1,20

  umlab switch set lan --ports 1-4 --reserved bridge

  umlab switch set lan --ports 1-24 --transparent

  umlab switch set lan --mirror tap --from 1,2 --vlans 10 --to 3

  umlab switch set lan --no-mirror tap
"""

STOP_EPILOG = """
Examples:

  umlab switch stop lan

  umlab switch stop lan --daemon-only
"""


_PORTS, _MIRRORS = "Ports", "Mirror sessions"


def _vid_option(text: str) -> Any:
    return typer.Option(metavar="VID", min=1, max=4094, help=text, rich_help_panel=_PORTS, show_default=False)


def _vids_option(text: str, panel: str = _PORTS) -> Any:
    return typer.Option(metavar="VIDS", help=text, rich_help_panel=panel, show_default=False)


def set_(
    name: SwitchName,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="What changes.",
            autocompletion=complete.setting_names,
            show_default=False,
        ),
    ] = None,
    ports: Annotated[
        str | None,
        typer.Option(
            metavar="PORTS",
            help="The ports that are told what follows.",
            autocompletion=complete.port_numbers,
            rich_help_panel=_PORTS,
            show_default=False,
        ),
    ] = None,
    access: Annotated[
        int | None,
        _vid_option("Be access ports of this VLAN: their guests know nothing of it."),
    ] = None,
    trunk: Annotated[
        str | None, _vids_option("Be trunks: what leaves has a tag, and these VLANs alone pass.")
    ] = None,
    native: Annotated[
        int | None, _vid_option("With --trunk: the VLAN of what has no tag, which is dropped otherwise.")
    ] = None,
    pvid: Annotated[
        int | None, _vid_option("The VLAN of what comes without a tag; of --tagged or --untagged.")
    ] = None,
    tagged: Annotated[str | None, _vids_option("VLANs whose frames leave with a tag.")] = None,
    untagged: Annotated[str | None, _vids_option("VLANs whose frames leave without a tag.")] = None,
    tpid: Annotated[
        Literal["ctag", "stag"] | None,
        typer.Option(
            help="What counts as a tag: 802.1Q's, which is the default, or a provider's of 802.1ad.",
            rich_help_panel=_PORTS,
            show_default=False,
        ),
    ] = None,
    transparent: Annotated[
        bool,
        typer.Option(
            "--transparent", help="Be as at first: tags and reserved addresses pass.", rich_help_panel=_PORTS
        ),
    ] = False,
    reserved: Annotated[
        Literal["transparent", "bridge", "peer"] | None,
        typer.Option(
            help="What becomes of STP, LACP, LLDP and 802.1X that comes from there: forwarded, dropped, or "
            "handed to the switch itself.",
            rich_help_panel=_PORTS,
            show_default=False,
        ),
    ] = None,
    ahead: Annotated[
        bool,
        typer.Option("--ahead", help="Also where nothing is plugged in yet.", rich_help_panel=_PORTS),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Copy frames to one more port, as a session of this name.",
            autocompletion=complete.mirror_names,
            rich_help_panel=_MIRRORS,
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PORTS",
            help="Copy what goes over these ports.",
            autocompletion=complete.port_numbers,
            rich_help_panel=_MIRRORS,
            show_default=False,
        ),
    ] = None,
    vlans: Annotated[str | None, _vids_option("Copy what is of these VLANs.", _MIRRORS)] = None,
    to: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65_535,
            help="The port that gets the copies, and nothing else.",
            autocompletion=complete.port_numbers,
            rich_help_panel=_MIRRORS,
            show_default=False,
        ),
    ] = None,
    ingress_only: Annotated[
        bool,
        typer.Option("--ingress-only", help="Not what goes to --from.", rich_help_panel=_MIRRORS),
    ] = False,
    egress_only: Annotated[
        bool,
        typer.Option("--egress-only", help="Not what comes from --from.", rich_help_panel=_MIRRORS),
    ] = False,
    no_mirror: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="End a session. May be given several times.",
            autocompletion=complete.mirror_names,
            rich_help_panel=_MIRRORS,
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and no more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change what a running switch and its ports are told to be, all or nothing; no port goes down.

    What differs is shown first.
    """
    from umlab.cli.port_option import MirrorWords, PortWords
    from umlab.cli.setting import parse_settings
    from umlab.cli.target import missing_switch, switch_place
    from umlab.client.sync import Client
    from umlab.daemon.switch_change import SwitchChange
    from umlab.errors import NoSuchSwitch

    plain = parse_settings(settings or [])
    lldp = plain.pop("lldp", None)
    order = PortWords(
        ports, access, trunk, native, pvid, tagged, untagged, tpid, transparent=transparent, reserved=reserved
    ).read()
    words = MirrorWords(
        mirror, source, vlans, to, ingress_only=ingress_only, egress_only=egress_only, ended=no_mirror or ()
    )
    mirrors = words.read()
    if not (settings or order.numbers or mirrors):
        raise typer.BadParameter("say what changes: KEY=VALUE, --ports, --mirror or --no-mirror")
    lab, switch = switch_place(name)
    output = Output(as_json=as_json)
    with Client(lab) as client:
        try:
            view = client.switch(switch)
            change = SwitchChange(plain, order.of(view.config), mirrors, ahead, lldp)
            _change(client, view, change, dry_run=dry_run, output=output)
        except NoSuchSwitch as error:
            raise missing_switch(client, error) from None


def _change(
    client: Client,
    view: SwitchView,
    change: SwitchChange,
    *,
    dry_run: bool,
    output: Output,
) -> None:
    from umlab.cli.difference import differences
    from umlab.errors import SwitchError

    try:
        found = differences(view, change)
    except ValueError as error:
        raise SwitchError(f"switch {view.name}: {error}") from None
    change.check_attached(view.config, [port.port_no for port in client.ports(view.name)])
    if not output.as_json:
        for each in found:
            output.progress(each.text)
    changed = False
    if not dry_run:
        settings = {**change.settings} if change.lldp is None else {**change.settings, "lldp": change.lldp}
        parts: dict[str, Any] = {"ports": change.ports, "mirrors": change.mirrors, "ahead": change.ahead}
        changed = client.set_switch(view.name, **parts, **settings).changed
    record = {
        "lab": client.name,
        "switch": view.name,
        "changed": changed,
        "difference": [each.record for each in found],
    }
    text = "nothing is changed" if dry_run else "changed" if changed else "it was so already"
    output.record(record, f"{view.name}: {text}")


def stop(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The lab.", autocompletion=complete.lab_names, show_default=False
        ),
    ],
    daemon_only: Annotated[
        bool,
        typer.Option("--daemon-only", help="Leave guests and ports to the keeper, for the next daemon."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a lab and wait until it is gone: guests, each by its own shutdown first, switches, daemon."""
    from umlab.cli.target import split
    from umlab.client.sync import Client
    from umlab.errors import LabNotRunning

    lab, switch = split(name)
    if lab is not None:
        raise typer.BadParameter(f"{name}: a lab is stopped as a whole, {switch} with it; write {lab}")
    spinning: dict[str, int] = {}
    try:
        with Client(name) as client:
            if not daemon_only:
                spinning = _left_reading(client)
            client.stop(keep=daemon_only)
    except LabNotRunning:
        if daemon_only or not _stop_keeper(name):
            raise
    text = f"{name}: its daemon has ended, guests and ports wait" if daemon_only else f"{name}: stopped"
    if spinning:
        guests = ", ".join(f"{umid} (pid {pid})" for umid, pid in spinning.items())
        text += (
            f"\n  {guests}: spins on its closed bess connection; set the interface down in the guest: "
            "ip link set vecN down"
        )
    Output(as_json=as_json).record(
        {
            "lab": name,
            "stopped": "daemon" if daemon_only else "lab",
            "spinning": [{"umid": umid, "pid": pid} for umid, pid in spinning.items()],
        },
        text,
    )


def _left_reading(client: Client) -> dict[str, int]:
    """Return umid and pid of the guests elsewhere whose kernels will read a connection's end for ever."""
    return {
        port.umid: port.pid
        for switch in client.switches()
        for port in client.ports(switch.name)
        if port.kind == "bess" and port.guest is None and port.umid is not None and port.pid is not None
    }


def _stop_keeper(name: str) -> bool:
    """End what a daemon that has died left, and say whether there was anything."""
    from umlab.api.background import stop_kept

    return stop_kept(name)
