"""What ``umlab run`` is asked for, checked, and made into a guest and a script for it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from umlab.daemon.place import runs_directory
from umlab.errors import LabError
from umlab.guest.cmdline import (
    BessNic,
    DaemonNic,
    DiskRoot,
    GuestSpec,
    HostRoot,
    Nic,
    Root,
    TinyRoot,
    check_path,
    nic_settings,
)
from umlab.guest.inside.script import command_script
from umlab.guest.kernel.store import Kernel, find_kernel

#: Names of roots that are no images.
HOST, TINY = "host", "tiny"
#: What is no switch.
NO_NET = "none"
#: What stands behind a disk's file that the guest must not change.
_COW = ":cow"
#: Variables that the command gets of ours, in every root, and in the host's.
_VARIABLES = frozenset({"TERM", "COLORTERM", "NO_COLOR", "LANG", "LANGUAGE", "TZ"})
_HOST_VARIABLES = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL"})
#: Folders of the host's that a guest has its own of.
_GUESTS_OWN = frozenset({"dev", "proc", "run", "sys"})
#: Folders that are empty in a guest whose kernel has no overlay.
_EMPTY_FOLDERS = ("/tmp/", "/var/tmp/")
#: Bytes of a path for which a kernel's command line has room in any case.
_MAX_TOLD = 1024
#: Bytes of memory below which kernels boot now and then only, or a command is killed before it has begun.
_MIN_MEMORY = 64 << 20
#: Devices ``ubdb`` to ``ubdp``.
_MAX_DISKS = 15
#: Busybox, in every root.
_BOX = "/run/umlab/busybox"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says.

    Attributes:
        command: The program and its arguments; empty for a shell.
        kernel: As `find_kernel` takes it.
        root: ``host``, ``tiny``, or an image as `find_image` takes it.
        net: A switch, the path of its socket, or ``none``.
        writable: Folders of the host's that the guest may write to.
        memory: Bytes.
        disks: ``FILE`` or ``FILE:cow``, one for each device.
        variables: ``NAME=VALUE``, or ``NAME`` for the value that it has here.
        all_output: The kernel shall print everything that it logs.
    """

    command: tuple[str, ...]
    kernel: str | None = None
    root: str = HOST
    net: str = NO_NET
    writable: tuple[str, ...] = ()
    memory: int = 256 << 20
    disks: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    all_output: bool = False


@dataclass(frozen=True, slots=True)
class RunOrder:
    """What is to be done.

    Attributes:
        spec: The guest.
        base: The directory of run directories.
        kernel: Its kernel.
        argv: The program and its arguments.
        script: What runs it.
        last_script: What puts everything on the host's disks that the guest has written there; ``None`` where
            it has written nothing.
        disks: The host's files that are disks of its own, and whether it writes to them.
    """

    spec: GuestSpec
    base: str
    kernel: Kernel
    argv: tuple[str, ...]
    script: str
    last_script: str | None
    disks: tuple[tuple[str, bool], ...] = ()


def make_order(options: RunOptions, environment: Mapping[str, str]) -> RunOrder:
    """Return what is to be done.

    Args:
        options: What is asked for.
        environment: Ours.

    Raises:
        UmlabError: Something that it needs is missing or not usable; names it.
    """
    if options.memory < _MIN_MEMORY:
        raise LabError(f"--mem: {options.memory >> 10} KiB, a command needs at least {_MIN_MEMORY >> 20}M")
    kernel = find_kernel(options.kernel)
    base = str(runs_directory())
    umid = f"run-{secrets.token_hex(4)}"
    folders = tuple(_folder(each) for each in options.writable)
    run_directory = os.path.join(base, umid)
    root = _root(options.root, folders, os.path.join(run_directory, "root.cow"))
    disks, used = _disks(options.disks, run_directory)
    files = [file for file, is_written in used if is_written]
    nics = (_nic(options.net, kernel),) if options.net != NO_NET else ()
    extra = [*disks, *(["loglevel=7"] if options.all_output else [])]
    has_host_files = isinstance(root, HostRoot)
    directory = _directory(folders, has_host_files=has_host_files)
    if not has_host_files:
        extra += (f"umlab.shared={folder}" for folder in folders)
    elif directory is not None and _is_lost(directory):
        extra.append(f"umlab.here={directory}")
    spec = GuestSpec(
        umid,
        kernel=kernel.path,
        modules_directory=kernel.modules_directory,
        memory=options.memory,
        root=root,
        nics=nics,
        extra=tuple(extra),
        writable=(*files, *folders),
    )
    argv = options.command or _shell(environment, has_host_files)
    script = command_script(
        argv,
        environment=command_environment(environment, options.variables, has_host_files=has_host_files),
        directory=directory,
    )
    up = [f"{_BOX} ip link set {name} up" for name, _ in nic_settings(nics)]
    return RunOrder(
        spec,
        base,
        kernel,
        argv,
        "\n".join([*up, script]),
        _last_script(len(disks)) if files or folders else None,
        tuple(used),
    )


def command_environment(
    ours: Mapping[str, str], variables: Iterable[str], *, has_host_files: bool
) -> dict[str, str]:
    """Return the variables of a command in a guest.

    Args:
        ours: Our own, of which it gets some.
        variables: Those that are asked for, ``NAME=VALUE``, or ``NAME`` for the value that it has here.
        has_host_files: Paths in our environment mean the same in the guest.
    """
    wanted = _VARIABLES | (_HOST_VARIABLES if has_host_files else frozenset())
    environment = {name: value for name, value in ours.items() if name in wanted or name.startswith("LC_")}
    for each in variables:
        name, sign, value = each.partition("=")
        if sign:
            environment[name] = value
        elif name in ours:
            environment[name] = ours[name]
    return environment


def _shell(environment: Mapping[str, str], has_host_files: bool) -> tuple[str, ...]:
    return ((has_host_files and environment.get("SHELL")) or "/bin/sh",)


def _directory(folders: Sequence[str], *, has_host_files: bool) -> str | None:
    """Return the folder where the command starts, ``None`` where ours is not in the guest."""
    # The folder that we are in may have been removed.
    with contextlib.suppress(FileNotFoundError):
        here = PurePath(os.getcwd())
        if any(here.is_relative_to(folder) for folder in folders):
            return str(here)
        if has_host_files and not _GUESTS_OWN.intersection(here.parts[1:2]):
            return str(here)
    return None


def _is_lost(directory: str) -> bool:
    """Say whether a guest whose kernel has no overlay lacks a folder of the host's, and can be told of it."""
    if not directory.startswith(_EMPTY_FOLDERS) or len(os.fsencode(directory)) > _MAX_TOLD:
        return False
    return directory.isprintable() and " " not in directory


def _folder(path: str) -> str:
    """Return a folder of the host's that the guest shall have, as its kernel is told of it."""
    real = os.path.realpath(path)
    # A variable of a script that is not set is not the folder where we are.
    if not path or not os.path.isdir(real):
        raise LabError(f"--rw {path or repr(path)}: there is no such folder")
    if real == "/" or real[1:] in _GUESTS_OWN:
        raise LabError(f"--rw {path}: the guest has its own {real}; name a folder below it")
    if not os.access(real, os.R_OK | os.X_OK):
        raise LabError(f"--rw {path}: this user may not read it")
    if not os.access(real, os.W_OK):
        raise LabError(f"--rw {path}: this user may not write to it")
    _check_told("--rw", path, real, ",")
    return real


def _check_told(option: str, path: str, told: str, forbidden: str) -> None:
    """Refuse a path that the kernel's command line cannot have."""
    try:
        check_path("its path", told, forbidden)
    except LabError as error:
        way = (
            "make a link to it elsewhere" if option == "--disk" else "rename it, or bind it to another place"
        )
        raise LabError(f"{option} {path}: a kernel cannot be told of it: {error}; {way}") from None


def _root(name: str, folders: tuple[str, ...], cow: str) -> Root:
    if name == HOST:
        return HostRoot(shared=folders)
    if name == TINY:
        return TinyRoot()
    from umlab.guest.disk.image import find_image

    image = str(find_image(name))
    _check_backing(image)
    return DiskRoot(cow, backing=image, init=None)


def _disks(disks: Sequence[str], run_directory: str) -> tuple[list[str], list[tuple[str, bool]]]:
    """Return what the kernel is told of the disks, and their files, and whether it writes to them.

    The first one is the second device, since the first one is the root where that is an image.
    """
    if len(disks) > _MAX_DISKS:
        raise LabError(f"{len(disks)} disks, a kernel has room for {_MAX_DISKS}")
    told, used = [], []
    for number, disk in enumerate(disks, 1):
        file = os.path.abspath(disk.removesuffix(_COW))
        _check_told("--disk", disk, file, ",:")
        if disk.endswith(_COW):
            _check_backing(file)
            told.append(f"ubd{number}={run_directory}/disk{number}.cow,{file}")
            used.append((file, False))
        else:
            _check_disk(file)
            told.append(f"ubd{number}={file}")
            used.append((file, True))
    return told, used


def _check_backing(file: str) -> None:
    """Refuse a file under a COW file that the kernel would take for something else, or hang of."""
    from umlab.guest.disk.cow import Backing, chain_problem, layout_problems
    from umlab.wire.cow import CowHeader

    check_path("backing image", file, ",:")
    with Backing(file) as image:
        header = CowHeader(3, os.fsencode(file), image.mtime, image.size)
        problem = chain_problem(file) if image.is_cow() else next(layout_problems(header), None)
    if problem is not None:
        raise LabError(str(problem))


def _check_disk(file: str) -> None:
    """Refuse a disk of which the kernel would only say that it cannot open it."""
    from umlab.guest.device import Disk
    from umlab.guest.disk.file_lock import user_of
    from umlab.guest.plug import check_plug

    disk = Disk(file)
    if os.path.isfile(file) and not os.access(file, os.W_OK):
        raise LabError(
            f"--disk {file}: this user may not write to it; write {file}{_COW} to leave it as it is"
        )
    check_plug(disk, None)
    with open(file, "rb") as opened:
        user = user_of(opened.fileno())
    if user is not None:
        raise LabError(f"--disk {file} is in use by {user}; stop that first")


def _nic(net: str, kernel: Kernel) -> Nic:
    """Return a NIC on a switch that runs."""
    if net.startswith(("/", "./", "../")):
        return _nic_at(os.path.abspath(net))
    from umlab.cli.target import missing_switch, switch_place
    from umlab.client.sync import Client
    from umlab.errors import NoSuchSwitch
    from umlab.guest.kernel.config import read_kernel_config, transports_of

    lab, switch = switch_place(net)
    with Client(lab) as client:
        try:
            listeners = client.switch(switch).listeners
        except NoSuchSwitch as error:
            raise missing_switch(client, error) from None
    has = {each.kind for each in transports_of(read_kernel_config(kernel.path)) if not each.missing}
    places = {each.kind: each.where for each in reversed(listeners) if each.kind in has}
    if "daemon" in places:
        # Behind a comma is the data socket of an old protocol.
        return DaemonNic(places["daemon"].partition(",")[0])
    if "bess" in places:
        return BessNic(places["bess"])
    raise LabError(
        f"--net {net}: the kernel {kernel.name} has none of the transports of this switch, "
        f"{', '.join(each.kind for each in listeners)}; see: umlab switch args {net}"
    )


def _nic_at(path: str) -> Nic:
    """Return a NIC on the switch that serves a socket."""
    from umlab.guest.plug import check_plug
    from umlab.guest.vector import VectorNic

    nic = DaemonNic(path)
    try:
        check_plug(nic, None)
    except LabError:
        check_plug(VectorNic("bess", (("dst", path),)), None)
        return BessNic(path)
    return nic


def _last_script(disks: int) -> str:
    names = " ".join(f"/dev/ubd{chr(ord('a') + number)}" for number in range(1, disks + 1))
    return f"{_BOX} sync\nfor each in {names}; do {_BOX} umount -r $each; done 2>/dev/null\n"
