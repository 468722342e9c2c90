"""The kernel command line of a guest, built from a checked description."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from umlab._name import check_name
from umlab.errors import LabError
from umlab.guest.inside.agent_line import SESSIONS
from umlab.wire.sockaddr import MAX_SOCKET_PATH

#: Bytes of memory below which no current kernel boots.
MIN_MEMORY = 32 << 20
#: Debian's kernel for guests, package ``user-mode-linux``.
DEFAULT_KERNEL = "/usr/bin/linux"

#: Descriptors that a guest inherits: its agent's serial lines, its terminal where it has one, and behind
#: these the sockets of its NICs.
AGENT_FD = 3
TERMINAL_FD = AGENT_FD + 1 + 2 * SESSIONS
NIC_FD = TERMINAL_FD + 1
#: The agent's serial lines: the control line, and two for each session.
AGENT_LINES = tuple(f"ssl{line}" for line in range(1 + 2 * SESSIONS))
#: The kernel's COMMAND_LINE_SIZE on UML, including the NUL; what is longer is cut.
_COMMAND_LINE_SIZE = 4096
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_MODULE = re.compile(r"[A-Za-z0-9_-]+")
#: What only the builder may set: a second one would replace the first.
_RESERVED = frozenset(
    {"umid", "uml_dir", "mem", "initrd", "con", "con0", "con1", "ssl", *AGENT_LINES, "root", "ubd0"}
)


@dataclass(frozen=True, slots=True)
class DaemonNic:
    """A NIC on the switch's daemon protocol: ``ethN=daemon,MAC,unix,CTL[,DATA]``.

    Attributes:
        control_path: The switch's control socket, absolute.
        mac: Such as ``02:00:00:00:00:01``; without it the kernel takes a new random one at each boot.
        data_path: The switch's data socket, for the old protocol version 0 only.
    """

    control_path: str
    mac: str | None = None
    data_path: str | None = None


@dataclass(frozen=True, slots=True)
class BessNic:
    """A NIC on a SOCK_SEQPACKET listener: ``vecN:transport=bess,dst=PATH[,mac=..][,mtu=..]``.

    Attributes:
        path: The listener's socket, absolute.
        mac: As in :class:`DaemonNic`.
        mtu: Bytes without the Ethernet header, 576 to 65534; the kernel's default is 1500.
    """

    path: str
    mac: str | None = None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class FdNic:
    """A NIC on a socket that the guest inherits: ``vecN:transport=fd,fd=N[,mac=..][,mtu=..]``.

    The guest closes it when the interface goes down, and cannot open it again.

    Attributes:
        switch: The switch that has the other end, by name; the same lab's.
        mac: As in :class:`DaemonNic`.
        mtu: As in :class:`BessNic`.
    """

    switch: str
    mac: str | None = None
    mtu: int | None = None


#: Every kind of NIC.
Nic = DaemonNic | BessNic | FdNic


@dataclass(frozen=True, slots=True)
class TinyRoot:
    """Our initramfs: busybox, the agent, and kernel modules loaded at boot.

    Attributes:
        modules: Names as for modprobe; what they need comes along.
    """

    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostRoot:
    """The host's own files, below a layer in memory that takes what the guest writes.

    Attributes:
        modules: As in :class:`TinyRoot`.
        shared: Host folders, absolute, that the guest sees as they are and can write to as its user can.
    """

    modules: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskRoot:
    """A root file system on ``ubd0``.

    Attributes:
        path: The image, or with ``backing`` the COW file, absolute.  The guest can write to it.  A COW
            file that does not exist yet has to be made before, or its folder be in ``GuestSpec.writable``.
        backing: The image under the COW file, absolute; never written to.
        init: The program in it that becomes process 1, absolute; ``None`` for ours, which starts nothing
            of it.
        modules: As in :class:`TinyRoot`.
    """

    path: str
    backing: str | None = None
    init: str | None = "/sbin/init"
    modules: tuple[str, ...] = ()

    @property
    def setting(self) -> str:
        """The disk as the kernel is told of it: ``FILE[,BACKING]``."""
        return self.path + (f",{self.backing}" if self.backing else "")


#: Every kind of root.
Root = TinyRoot | HostRoot | DiskRoot


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """One guest.

    Attributes:
        umid: Its name: at most 24 letters, digits, ``.``, ``_``, ``-``, beginning with a letter or digit.
        kernel: The kernel's program file, absolute.
        modules_directory: Where its modules are, absolute; those that were built with it, or Debian's, unless
            given.
        memory: Bytes of memory, at least 32 MiB; the host gives only what the guest really uses.  With 64
            MiB Debian's 6.1 kernel now and then runs out of threads (their limit follows the memory) in
            its self-tests at boot, and init cannot fork.
        root: Where its root file system comes from.
        nics: Its NICs; each kind counts by itself (``eth0``, ``eth1`` and ``vec0``, ``vec1``).
        extra: More kernel arguments, each one word.
        writable: Host files and folders, absolute, that the guest's processes may write to beside its
            own run directory (the folder of a hostfs mount, a COW file's folder).
        landlock: ``False`` starts the guest without Landlock, so that a guest whose main process dies,
            or that mounts a hostfs, has all of its user's rights on the host.
    """

    umid: str
    kernel: str = DEFAULT_KERNEL
    modules_directory: str | None = None
    memory: int = 128 << 20
    root: Root = TinyRoot()
    nics: tuple[Nic, ...] = ()
    extra: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    landlock: bool = True

    def __post_init__(self) -> None:
        """Refuse what would not reach the kernel as it is written here.

        Raises:
            LabError: A value is not usable; names it.
        """
        check_name("guest", self.umid)
        check_path("kernel", self.kernel, "")
        if self.modules_directory is not None:
            check_path("modules directory", self.modules_directory, "")
        if self.memory < MIN_MEMORY:
            raise LabError(
                f"guest {self.umid}: memory: {self.memory} bytes, at least {MIN_MEMORY} are needed"
            )
        for path in self.writable:
            check_path("writable", path, "")
        for word in self.extra:
            _check_extra(word)
        for nic in self.nics:
            check_nic(nic)
        _check_root(self.root)


def kernel_arguments(
    spec: GuestSpec,
    *,
    uml_dir: str,
    initrd: str,
    share: str,
    terminal: bool = False,
    notify: str | None = None,
) -> list[str]:
    """Build the arguments of a guest's kernel, without its program name.

    The first console goes to descriptor 1 and reads nothing, the second one is a terminal where the guest
    has one, and the others are off (Debian's default for them does not work); the first serial lines are
    the agent's.  What begins with ``umlab.`` is for our init; the kernel passes over it.

    Args:
        spec: The guest.
        uml_dir: The directory under which the kernel makes its umid directory, absolute.
        initrd: The initramfs, absolute.
        share: The folder that it has in common with the host, absolute.
        terminal: Whether it inherits a terminal for its second console.  Without one the descriptors of
            its NICs begin in the terminal's place.
        notify: The socket on which its kernel says what nobody has asked for, absolute.

    Raises:
        LabError: A path is not usable, or all arguments together are too long for the kernel.

    Source: Linux arch/um/kernel/um_arch.c, arch/um/drivers/{line,chan_kern,ubd_kern,daemon_kern}.c and
        vector_kern.c there.
    """
    check_path("run directory", uml_dir, "")
    arguments = [f"mem={spec.memory // 1024}K", f"umid={spec.umid}", f"uml_dir={uml_dir.rstrip('/')}/"]
    arguments += ["con=null", "con0=null,fd:1"]
    if terminal:
        arguments.append(f"con1=fd:{TERMINAL_FD}")
    arguments.append("ssl=null")
    arguments += [f"{line}=fd:{fd}" for fd, line in enumerate(AGENT_LINES, AGENT_FD)]
    # Making Debian's 256 terminals of the BSD kind is a quarter of the time that its kernel takes to boot.
    arguments += ["quiet", "pty.legacy_count=0"]
    if notify is not None:
        check_socket("notify", notify, "")
        arguments.append(f"mconsole=notify:{notify}")
    check_path("initrd", initrd, "")
    check_path("share", share, ",")
    arguments += [f"initrd={initrd}", f"umlab.name={spec.umid}", f"umlab.share={share}"]
    arguments += _root_arguments(spec.root)
    if spec.modules_directory is not None:
        arguments.append(f"umlab.modules={spec.modules_directory}")
    # The vector driver takes a colon, since its setting is a list of assignments.
    arguments += [
        f"{device}{':' if device.startswith('vec') else '='}{setting}"
        for device, setting in nic_settings(spec.nics, NIC_FD if terminal else TERMINAL_FD)
    ]
    arguments += spec.extra
    size = len(os.fsencode(" ".join(arguments)))
    if size >= _COMMAND_LINE_SIZE:
        raise LabError(
            f"guest {spec.umid}: the kernel command line has {size} bytes, "
            f"at most {_COMMAND_LINE_SIZE - 1} fit"
        )
    return arguments


def _root_arguments(root: Root) -> list[str]:
    if isinstance(root, DiskRoot):
        init = [f"umlab.init={root.init}"] if root.init else []
        return [f"ubd0={root.setting}", "umlab.root=disk", *init]
    if isinstance(root, HostRoot):
        return ["umlab.root=host", *(f"umlab.shared={folder}" for folder in root.shared)]
    return []


def nic_settings(nics: tuple[Nic, ...], first_fd: int = NIC_FD) -> list[tuple[str, str]]:
    """Return each NIC's device name and its setting, as the management console's ``config`` takes it.

    Args:
        nics: The NICs.
        first_fd: The inherited descriptor of the first :class:`FdNic`; the others' follow.
    """
    settings: list[tuple[str, str]] = []
    eth, vec, fd = 0, 0, first_fd
    for nic in nics:
        if isinstance(nic, DaemonNic):
            data = f",{nic.data_path}" if nic.data_path else ""
            settings.append((f"eth{eth}", f"daemon,{nic.mac or ''},unix,{nic.control_path}{data}"))
            eth += 1
            continue
        if isinstance(nic, FdNic):
            setting = f"transport=fd,fd={fd}"
            fd += 1
        else:
            setting = f"transport=bess,dst={nic.path}"
        mac = f",mac={nic.mac}" if nic.mac else ""
        mtu = f",mtu={nic.mtu}" if nic.mtu else ""
        settings.append((f"vec{vec}", f"{setting}{mac}{mtu}"))
        vec += 1
    return settings


def check_mac(mac: str) -> None:
    """Refuse what the kernel would replace by a random address.  Raises LabError."""
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or not int(mac.replace(":", ""), 16):
        raise LabError(f"mac {mac[:64]!r} is not a unicast address such as 02:00:00:00:00:01")


def check_mtu(mtu: int) -> None:
    """Refuse what the kernel would replace by its default.  Raises LabError."""
    if not 576 <= mtu <= 65534:
        raise LabError(f"mtu {mtu} is not between 576 and 65534")


def check_nic(nic: Nic) -> None:
    """Refuse a NIC that would not reach the kernel as it is written.  Raises LabError."""
    if nic.mac is not None:
        check_mac(nic.mac)
    if isinstance(nic, DaemonNic):
        check_socket("control_path", nic.control_path, ",")
        if nic.data_path is not None:
            check_socket("data_path", nic.data_path, ",")
        return
    if isinstance(nic, FdNic):
        check_name("switch", nic.switch)
    else:
        check_socket("path", nic.path, ",=")
    if nic.mtu is not None:
        check_mtu(nic.mtu)


def _check_root(root: Root) -> None:
    for name in root.modules:
        if not _MODULE.fullmatch(name):
            raise LabError(f"module {name[:64]!r} is not a module's name")
    if isinstance(root, HostRoot):
        for folder in root.shared:
            check_path("shared folder", folder, ",")
    if isinstance(root, DiskRoot):
        check_path("root image", root.path, ",:")
        if root.backing is not None:
            check_path("backing image", root.backing, ",:")
        if root.init is not None:
            check_path("init", root.init, "")


def _check_extra(word: str) -> None:
    if not word or any(char.isspace() or not char.isprintable() for char in word):
        raise LabError(f"kernel argument {word[:64]!r} is not one printable word without blanks")
    key = re.split("[=:]", word, maxsplit=1)[0]
    if key in _RESERVED:
        raise LabError(f"kernel argument {word[:64]!r}: {key} is set from the guest's description")


def check_socket(what: str, path: str, forbidden: str) -> None:
    """Refuse a path as :func:`check_path` does, and one that no socket address holds.  Raises LabError."""
    check_path(what, path, forbidden)
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise LabError(
            f"{what} {path!r} has {len(os.fsencode(path))} bytes, a socket path has at most {MAX_SOCKET_PATH}"
        )


def check_path(what: str, path: str, forbidden: str) -> None:
    """Refuse a path that would end early, or begin something else, where it stands.  Raises LabError."""
    if not PurePosixPath(path).is_absolute():
        raise LabError(f"{what} {path[:200]!r} is not an absolute path")
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise LabError(f"{what} {path[:200]!r} is not the name of a file") from None
    for char in path:
        if char.isspace() or ord(char) < 0x20 or char in '\x7f"' or char in forbidden:
            raise LabError(f"{what} {path[:200]!r} must not contain {char!r}")
