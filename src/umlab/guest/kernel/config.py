"""What a UML kernel was built with, as its own ``--showconfig`` says.

Source: Linux arch/um/kernel/um_arch.c; arch/um/drivers/Kconfig.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from umlab.guest.kernel.answer import ask, no_kernel

_OPTION = re.compile(rb"^(CONFIG_[A-Za-z0-9_]+)=(.*)$", re.MULTILINE)
#: Its second comment names the release, as in ``# Linux/um 6.1.176 Kernel Configuration``.
_RELEASE = re.compile(rb"^# Linux/\S+ (\d{1,4}\.\d{1,4})\b", re.MULTILINE)
#: The options without which a kernel does not have a transport.
_NEEDS = {
    "daemon": ("CONFIG_UML_NET", "CONFIG_UML_NET_DAEMON"),
    "bess": ("CONFIG_UML_NET_VECTOR",),
    "tap": ("CONFIG_UML_NET_VECTOR",),
    "mcast": ("CONFIG_UML_NET", "CONFIG_UML_NET_MCAST"),
    "l2tpv3": ("CONFIG_UML_NET_VECTOR",),
    "gre": ("CONFIG_UML_NET_VECTOR",),
    "vde": ("CONFIG_UML_NET", "CONFIG_UML_NET_VDE"),
    "vec-vde": ("CONFIG_UML_NET_VECTOR",),
}
#: What else a guest can do, and the options without which its kernel cannot.
_FEATURE_NEEDS = {
    "virtio": ("CONFIG_VIRTIO_UML", "CONFIG_VIRTIO_NET"),
    "hostfs": ("CONFIG_HOSTFS",),
    "overlay": ("CONFIG_OVERLAY_FS",),
    "time-travel": ("CONFIG_UML_TIME_TRAVEL_SUPPORT",),
    "gcov": ("CONFIG_GCOV",),
}
#: The first releases with a transport that has no option of its own.
_SINCE = {"vec-vde": (6, 12)}


@dataclass(frozen=True, slots=True)
class TransportSupport:
    """Whether a kernel has a transport.

    Attributes:
        kind: ``daemon``, ``bess``, ``l2tpv3``, ``gre``, ``vde``, ``vec-vde`` (the vector drivers'), or
            ``tap`` (a device that the guest itself opens).
        missing: The options that it was built without, or the release that it is older than, such as
            ``Linux 6.12``; empty where it has the transport.
    """

    kind: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeatureSupport:
    """Whether a kernel has something, built in or as a module.

    Attributes:
        kind: ``virtio`` (devices over vhost-user), ``hostfs``, ``overlay``, ``time-travel`` or ``gcov``.
        missing: The options that it was built without; empty where it has it.
    """

    kind: str
    missing: tuple[str, ...]


def read_kernel_config(kernel: str) -> dict[str, str]:
    """Return the options of a kernel; blocks while it runs, 10 seconds at most.

    Args:
        kernel: Its program file.  It is run as it is: name no program that you would not start.

    Raises:
        LabError: It cannot be run, or is no UML kernel.
    """
    config = parse_config(ask(kernel, "--showconfig"))
    if config.get("CONFIG_UML") != "y":
        raise no_kernel(kernel, "its --showconfig does not say CONFIG_UML=y")
    return config


def parse_config(data: bytes) -> dict[str, str]:
    """Return the options that are set in the text of a kernel configuration; other lines are passed over.

    A value is as it is written, such as ``y``, ``m``, ``0x40`` or ``"text"``.  Where the text tells the
    kernel's release, the first two numbers of it are under ``release``, such as ``6.12``.
    """
    config = {name.decode("ascii"): value.decode("utf-8", "replace") for name, value in _OPTION.findall(data)}
    if release := _RELEASE.search(data):
        config["release"] = release[1].decode("ascii")
    return config


def transports_of(config: dict[str, str]) -> tuple[TransportSupport, ...]:
    """Return, for each transport, whether a kernel with these options has it."""
    return tuple(
        TransportSupport(
            kind, (*(name for name in needs if config.get(name) != "y"), *_missing_release(kind, config))
        )
        for kind, needs in _NEEDS.items()
    )


def features_of(config: dict[str, str]) -> tuple[FeatureSupport, ...]:
    """Return, for each thing that a guest can do beside its transports, whether a kernel has it."""
    return tuple(
        FeatureSupport(kind, tuple(name for name in needs if config.get(name) not in ("y", "m")))
        for kind, needs in _FEATURE_NEEDS.items()
    )


def _missing_release(kind: str, config: dict[str, str]) -> tuple[str, ...]:
    """Return the release that a transport came with, where a kernel is older or does not tell its own."""
    since = _SINCE.get(kind)
    if since is None or tuple(map(int, config.get("release", "0.0").split("."))) >= since:
        return ()
    return ("Linux {}.{}".format(*since),)
