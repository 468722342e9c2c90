"""What a UML kernel was built with, as its own ``--showconfig`` says.

Source: Linux arch/um/kernel/um_arch.c; arch/um/drivers/Kconfig.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from dataclasses import dataclass

from umlab.errors import LabError
from umlab.guest.cmdline import DEFAULT_KERNEL

#: Seconds that a kernel has for its answer, which takes it some milliseconds.
TIMEOUT = 10.0
#: Bytes of an answer; Debian's kernel has 82 KiB.
MAX_CONFIG = 1 << 20
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
    config = parse_config(_output_of(kernel))
    if config.get("CONFIG_UML") != "y":
        raise _no_kernel(kernel, "its --showconfig does not say CONFIG_UML=y")
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


def _output_of(kernel: str) -> bytes:
    """Return what a program writes when it is asked for its configuration; nothing of it runs on.

    Raises:
        LabError: It cannot be run, fails, writes too much, or does not end in time.
    """
    deadline = time.monotonic() + TIMEOUT
    try:
        # A path without a slash would be looked for in PATH.
        process = subprocess.Popen(
            [os.path.abspath(kernel), "--showconfig"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LabError(f"cannot run the kernel {kernel}: {reason}") from None
    assert process.stdout is not None
    try:
        output = _read_all(kernel, process.stdout.fileno(), deadline)
        _await_end(kernel, process.pid, deadline)
    finally:
        process.stdout.close()
        # It has not been reaped, so the number is still its group's, with all that it has left behind.
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0:
        raise _no_kernel(kernel, "it does not know --showconfig")
    return output


def _read_all(kernel: str, fd: int, deadline: float) -> bytes:
    output = b""
    while True:
        _await_readable(kernel, fd, deadline)
        data = os.read(fd, 65_536)
        if not data:
            return output
        output += data
        if len(output) > MAX_CONFIG:
            raise _no_kernel(kernel, f"its --showconfig writes more than {MAX_CONFIG >> 20} MiB")


def _await_end(kernel: str, pid: int, deadline: float) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        _await_readable(kernel, pidfd, deadline)
    finally:
        os.close(pidfd)


def _await_readable(kernel: str, fd: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise _no_kernel(kernel, f"its --showconfig does not end within {TIMEOUT:g} seconds")


def _no_kernel(kernel: str, reason: str) -> LabError:
    return LabError(
        f"{kernel} is not a User Mode Linux kernel: {reason}; "
        f"Debian's is {DEFAULT_KERNEL}, from the package user-mode-linux"
    )
