"""What a guest is made of: its kernel, the kernel's transports and modules, busybox for its root."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from umlab.errors import LabError, RemoteProtocolError
from umlab.guest.inside.root import find_busybox
from umlab.guest.kernel.answer import kernel_release
from umlab.guest.kernel.config import TransportSupport, read_kernel_config, transports_of
from umlab.guest.kernel.module import load_index
from umlab.guest.kernel.store import modules_directory
from umlab.lab.doctor.child import run_briefly
from umlab.lab.doctor.finding import Status, Subject, Verdict

_INSTALL = "install the package user-mode-linux, or name another kernel with --kernel"
_RELEASE = re.compile(rb"\d[\w.+~-]*\n?")


def check_kernel(subject: Subject) -> Verdict:
    """Run the kernel, and let it say which one it is."""
    path = subject.kernel
    if not os.path.isfile(path):
        return Verdict(Status.FAIL, f"there is no file {path}", _INSTALL)
    if not os.access(path, os.X_OK):
        return Verdict(Status.FAIL, f"{path} may not be executed", f"chmod +x {path}")
    try:
        outcome = run_briefly([path, "--version"])
    except OSError as error:
        return Verdict(Status.FAIL, f"{path} cannot be executed: {error.strerror}", _INSTALL)
    if outcome.status != 0 or not _RELEASE.fullmatch(outcome.output):
        said = f"asked for its version: {outcome.text}"
        return Verdict(Status.FAIL, f"{path} is not a User Mode Linux kernel; {said}", _INSTALL)
    return Verdict(Status.OK, f"{path}, release {outcome.text}")


def check_transports(subject: Subject) -> Verdict:
    """Let the kernel say how its NICs can be attached."""
    try:
        support = transports_of(read_kernel_config(subject.kernel))
    except LabError as error:
        return Verdict(Status.FAIL, str(error), _INSTALL)
    return judge_transports(support)


def judge_transports(support: Sequence[TransportSupport]) -> Verdict:
    """Say which transports there are, and of the others what the kernel was built without."""
    has = ", ".join(each.kind for each in support if not each.missing)
    lacks = "; ".join(
        f"no {each.kind}: without {', '.join(each.missing)}" for each in support if each.missing
    )
    if not has:
        return Verdict(Status.FAIL, f"its guests cannot be attached to a switch: {lacks}", _INSTALL)
    return Verdict(Status.OK, f"{has}; {lacks}" if lacks else has)


def check_modules(subject: Subject) -> Verdict:
    """Look for the modules of the kernel's release."""
    release = kernel_release(subject.kernel)
    try:
        where, index = load_index(release, modules_directory(Path(subject.kernel), release))
    except (LabError, RemoteProtocolError) as error:
        return Verdict(
            Status.WARN,
            f"guests of this kernel cannot load modules: {error}",
            "install the package user-mode-linux of the same release, if guests need modules",
        )
    return Verdict(Status.OK, f"{len(index.needs)} modules in {where}")


def check_busybox(_subject: Subject) -> Verdict:
    """Look for the program that the tiny root is made of."""
    try:
        return Verdict(Status.OK, find_busybox())
    except LabError as error:
        return Verdict(Status.FAIL, str(error), "install the package busybox-static")
