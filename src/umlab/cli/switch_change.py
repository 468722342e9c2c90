"""``umlab switch set`` and ``stop``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli import complete
from umlab.cli.option import AsJson, SwitchName
from umlab.cli.output import Output

if TYPE_CHECKING:
    from umlab.client.sync import Client

SET_EPILOG = """
Settings: hub=on|off, ageing_time=TIME, max_frame=BYTES, fdb_capacity=ADDRESSES, egress_queue_depth=FRAMES.
A TIME is a number and its unit: ms, s, min or h.

Examples:

  umlab switch set lan hub=on

  umlab switch set ring/a ageing_time=100s max_frame=1518
"""

STOP_EPILOG = """
Examples:

  umlab switch stop lan

  umlab switch stop lan --daemon-only
"""


def set_(
    name: SwitchName,
    settings: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE",
            help="What changes.",
            autocompletion=complete.setting_names,
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Change what a running switch is told to be; no port goes down."""
    from umlab.cli.setting import parse_settings
    from umlab.cli.target import missing_switch, switch_place
    from umlab.client.sync import Client
    from umlab.errors import NoSuchSwitch

    changes = parse_settings(settings)
    lab, switch = switch_place(name)
    with Client(lab) as client:
        try:
            changed = client.set_switch(switch, **changes).changed
        except NoSuchSwitch as error:
            raise missing_switch(client, error) from None
    Output(as_json=as_json).record(
        {"lab": lab, "switch": switch, "changed": changed},
        f"{switch}: changed" if changed else f"{switch}: it was so already",
    )


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
