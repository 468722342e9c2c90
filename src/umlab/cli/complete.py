"""Names for the shell's completion: quick, and never an error, whatever state the labs are in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    from umlab.client.sync import Client
    from umlab.daemon.disk import KeptDisk

T = TypeVar("T")


def lab_names(incomplete: str) -> list[str]:
    """Return the labs that run."""
    return [name for name in _running() if name.startswith(incomplete)]


def switch_names(incomplete: str) -> list[str]:
    """Return the switches that run, each in its shortest form."""
    names = []
    for lab, view in _running().items():
        names += [switch if switch == lab else f"{lab}/{switch}" for switch in view["switches"]]
    return [name for name in names if name.startswith(incomplete)]


def guest_names(incomplete: str) -> list[str]:
    """Return the guests of all labs, each in its shortest form."""
    return _beginning(incomplete, _members(_running()))


def console_names(incomplete: str) -> list[str]:
    """Return the guests of all labs, and those that are found elsewhere."""
    from umlab.client.find import guest_roots, lab_of
    from umlab.mconsole.discover import discover

    running = _running()
    found = [each for each in discover(guest_roots()) if each.state == "listening"]
    others = [(each.umid, each.path) for each in found if lab_of(each) not in running]
    return _beginning(incomplete, [*_members(running), *others])


def copy_places(incomplete: str) -> list[str]:
    """Return the guests of all labs, each with the colon behind it; the shell itself knows what is here."""
    return [f"{name}:" for name in guest_names(incomplete)]


def hook_names(incomplete: str) -> list[str]:
    """Return the hooks of all labs that answer, or the labs while none is typed."""
    from umlab.client.sync import Client
    from umlab.errors import UmlabError

    lab, slash, _ = incomplete.partition("/")
    if not slash:
        return [f"{name}/" for name in lab_names(incomplete)]
    # A daemon that hangs is none of these.
    if lab in _running():
        with contextlib.suppress(UmlabError), Client(lab) as client:
            return [
                name
                for name in (f"{lab}/{hook.name}" for hook in client.hooks())
                if name.startswith(incomplete)
            ]
    return []


def kernel_names(incomplete: str) -> list[str]:
    """Return the kernels that have a name."""
    from umlab.guest.kernel.store import DEBIAN

    return [name for name in (DEBIAN,) if name.startswith(incomplete)] + built_kernel_names(incomplete)


def built_kernel_names(incomplete: str) -> list[str]:
    """Return the kernels that were built."""
    from umlab.errors import UmlabError
    from umlab.guest.kernel import store as kernel_store

    with contextlib.suppress(UmlabError, OSError):
        return [name for name in kernel_store.kernel_names() if name.startswith(incomplete)]
    return []


def image_names(incomplete: str) -> list[str]:
    """Return the images of the store."""
    from umlab.errors import UmlabError
    from umlab.guest.disk.image import list_images

    with contextlib.suppress(UmlabError, OSError):
        return [image.name for image in list_images() if image.name.startswith(incomplete)]
    return []


def root_names(incomplete: str) -> list[str]:
    """Return what a guest of `umlab run` can have as its root."""
    return [name for name in ("host", "tiny") if name.startswith(incomplete)] + image_names(incomplete)


def disk_names(incomplete: str) -> list[str]:
    """Return the labs that keep disks, and their guests that have one."""
    names: dict[str, None] = {}
    for disk in _kept_disks():
        names |= {disk.lab: None, f"{disk.lab}/{disk.guest}": None}
    return [name for name in names if name.startswith(incomplete)]


def snapshot_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the snapshots of the command's lab or guest."""
    target = ctx.params.get("target") or ""
    names = [
        disk.snapshot
        for disk in _kept_disks()
        if disk.snapshot is not None and target in (disk.lab, disk.guest, f"{disk.lab}/{disk.guest}")
    ]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _kept_disks() -> list[KeptDisk]:
    from umlab.daemon.disk import kept_disks
    from umlab.errors import UmlabError

    with contextlib.suppress(UmlabError, OSError):
        return kept_disks()
    return []


def port_numbers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the ports of the command's switch where something is plugged in, behind those that are typed."""
    typed, comma, last = incomplete.rpartition(",")
    ports = _asked(ctx, lambda client, switch: client.ports(switch)) or []
    numbers = [str(port.port_no) for port in ports]
    return [f"{typed}{comma}{number}" for number in numbers if number.startswith(last)]


def mirror_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the mirror sessions of the command's switch."""
    view = _asked(ctx, lambda client, switch: client.switch(switch))
    return [each.name for each in view.config.mirrors if each.name.startswith(incomplete)] if view else []


def setting_names(incomplete: str) -> list[str]:
    """Return what ``switch set`` can change."""
    from umlab.cli.setting import SETTINGS

    if "=" in incomplete:
        key = incomplete.partition("=")[0]
        values = SETTINGS[key].examples if key in SETTINGS else ()
        return [word for word in (f"{key}={value}" for value in values) if word.startswith(incomplete)]
    return [f"{key}=" for key in SETTINGS if key.startswith(incomplete)]


def _members(running: dict[str, dict[str, list[str]]]) -> list[tuple[str, str]]:
    """Return the guests of labs, each by its name and by one that no other has."""
    return [(guest, f"{lab}/{guest}") for lab, view in running.items() for guest in view["guests"]]


def _beginning(incomplete: str, guests: list[tuple[str, str]]) -> list[str]:
    from umlab.client.find import short_names

    names = [place for _, place in guests] if "/" in incomplete else short_names(guests)
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


def _asked(ctx: typer.Context, ask: Callable[[Client, str], T]) -> T | None:
    """Return what a question about the command's switch is answered with, ``None`` where there is nobody."""
    from umlab.cli.target import switch_place
    from umlab.client.sync import Client
    from umlab.errors import UmlabError

    lab, switch = switch_place(ctx.params.get("name") or "")
    # A daemon that hangs is none of these.
    if switch in _running().get(lab, {}).get("switches", ()):
        with contextlib.suppress(UmlabError), Client(lab) as client:
            return ask(client, switch)
    return None


def _running() -> dict[str, dict[str, list[str]]]:
    """Return the names of switches and guests of every lab that answers."""
    from umlab.client.survey import survey

    found = {}
    for name, answer in survey().answers.items():
        try:
            view = json.loads(answer or b"")[0]
            found[name] = {kind: [str(each) for each in view[kind]] for kind in ("switches", "guests")}
        except (ValueError, LookupError, TypeError):
            # No daemon of this version.
            continue
    return found
