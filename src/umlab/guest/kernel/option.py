"""The options that a kernel of ours is built with, and fragments of a configuration.

Source: Linux Documentation/kbuild/kconfig.rst, arch/um/drivers/Kconfig, arch/um/Kconfig.debug.
"""

from __future__ import annotations

import re

from umlab.errors import RemoteProtocolError

_SET = re.compile(r"(CONFIG_[A-Za-z0-9_]+)=(\S.*|)")
_UNSET = re.compile(r"# (CONFIG_[A-Za-z0-9_]+) is not set")

#: What a guest of umlab can use.  All of it is built in, so that a root needs no module to come up.
_PRESENT = (
    # How it is attached to a switch, and to whatever speaks vhost-user.
    *("UML_NET", "UML_NET_DAEMON", "UML_NET_MCAST", "UML_NET_VECTOR"),
    *("VIRTIO_UML", "VIRTIO_NET", "VIRTIO_BLK", "VIRTIO_CONSOLE"),
    # Its roots: an initramfs, a disk, the host's files below an overlay.
    *("BLK_DEV_INITRD", "RD_GZIP", "DEVTMPFS", "TMPFS", "BLK_DEV_UBD", "BLK_DEV_LOOP", "EXT4_FS"),
    *("HOSTFS", "OVERLAY_FS"),
    # What its programs set up in a network.
    *("PACKET", "IPV6", "VLAN_8021Q", "BRIDGE", "BRIDGE_VLAN_FILTERING", "DUMMY", "VETH", "TUN"),
    *("NET_SCHED", "NET_SCH_NETEM", "NET_SCH_TBF", "NET_SCH_FQ_CODEL"),
    *("NET_NS", "PID_NS", "USER_NS"),
    # What the console asks, and time that does not follow the host's.
    *("MAGIC_SYSRQ", "UML_TIME_TRAVEL_SUPPORT"),
)
#: What nobody needs in a guest, needs libraries that are not in every machine, or only takes time to build.
_ABSENT = (
    *("UML_NET_ETHERTAP", "UML_NET_TUNTAP", "UML_NET_SLIP", "UML_NET_SLIRP", "UML_NET_VDE"),
    *("SOUND", "WIRELESS", "WLAN", "REISERFS_FS", "SYSFS_DEPRECATED", "WERROR", "LOCALVERSION_AUTO"),
)
#: Symbols for a debugger, and stacks that it can follow.
_DEBUG = {"DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT": "y", "GDB_SCRIPTS": "y", "FRAME_POINTER": "y"}
#: UML has its coverage from the C library at the end of its process, and with modules not at all.
_GCOV = {"GCOV": "y", "MODULES": "n"}


def wanted_options(*, debug: bool = False, gcov: bool = False) -> dict[str, str]:
    """Return the options that a kernel of ours is built with, each with ``y`` or ``n``.

    Args:
        debug: With symbols for a debugger.
        gcov: With coverage, which needs these symbols.
    """
    wanted = dict.fromkeys(_PRESENT, "y") | dict.fromkeys(_ABSENT, "n")
    wanted |= _DEBUG if debug or gcov else {"DEBUG_INFO_NONE": "y"}
    wanted |= _GCOV if gcov else {}
    return {f"CONFIG_{name}": value for name, value in wanted.items()}


def parse_fragment(data: bytes) -> dict[str, str]:
    """Return the options of a fragment of a kernel's configuration, ``n`` for what is not to be set.

    Raises:
        RemoteProtocolError: A line is no option, no comment and not blank; names it.
    """
    options: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        text = line.strip()
        if option := _SET.fullmatch(text):
            options[option[1]] = option[2]
        elif option := _UNSET.fullmatch(text):
            options[option[1]] = "n"
        elif text and not text.startswith("#"):
            raise RemoteProtocolError(f"line {number} is no option CONFIG_NAME=VALUE: {text[:80]!r}")
    return options


def serialize_fragment(options: dict[str, str]) -> bytes:
    """Return options as the lines of a configuration; the reverse of :func:`parse_fragment`."""
    return "".join(f"{name}={value}\n" for name, value in options.items()).encode()


def not_taken(wanted: dict[str, str], config: dict[str, str]) -> dict[str, str]:
    """Return the options of a configuration that are not as they were wanted, with their values.

    Args:
        wanted: As :func:`parse_fragment` returns them.
        config: As :func:`~umlab.guest.kernel.config.parse_config` returns them; what is not there is ``n``.
    """
    return {name: config.get(name, "n") for name, value in wanted.items() if config.get(name, "n") != value}
