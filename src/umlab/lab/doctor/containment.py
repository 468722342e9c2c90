"""What a guest's kernel is built on and held back by: ptrace, seccomp, Landlock."""

from __future__ import annotations

import os
import sys

from umlab.guest import containment, landlock, launch
from umlab.guest.containment import Means
from umlab.lab.doctor import trace_probe
from umlab.lab.doctor.child import Outcome, run_briefly
from umlab.lab.doctor.finding import Status, Subject, Verdict

_PTRACE_SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
#: From here on only processes with CAP_SYS_PTRACE may trace, even their own children.
_ADMIN_ONLY = 2
#: Landlock versions from which a guest cannot cut files short, and cannot signal its user's processes.
_HAS_TRUNCATE, _HAS_SIGNAL = 3, 6
#: Programs that the launcher becomes in a kernel's place; status 0 says that it holds them back.
_LEAVE_GROUP = """
import os
child = os.fork()
if not child:
    try:
        os.setsid()
    except PermissionError:
        os._exit(0)
    os._exit(1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
_WRITE_FILE = """
try:
    open("/proc/self/comm", "r+").close()
except OSError:
    raise SystemExit(0)
raise SystemExit(1)
"""


def check_ptrace(_subject: Subject) -> Verdict:
    """Trace a child and stop its system call, as a kernel does with its guest's programs."""
    scope = _ptrace_scope()
    outcome = run_briefly([sys.executable, "-I", "-S", trace_probe.__file__])
    if outcome.status == 0 and (scope is None or scope < _ADMIN_ONLY):
        shown = "" if scope is None else f" (yama ptrace_scope {scope})"
        return Verdict(Status.OK, f"a child can be traced and its system calls replaced{shown}")
    if scope is not None and scope >= _ADMIN_ONLY:
        return Verdict(
            Status.FAIL,
            f"yama ptrace_scope is {scope}: guests, which have no capabilities, cannot trace their programs",
            "as root: sysctl -w kernel.yama.ptrace_scope=1 (3 stays until the next boot)",
        )
    return Verdict(
        Status.FAIL,
        f"a child cannot be traced: {outcome.text}",
        "allow ptrace: in a container, --cap-add SYS_PTRACE or a seccomp profile that has it",
    )


def check_seccomp(_subject: Subject) -> Verdict:
    """Start a program as a guest is started and see that it cannot leave its process group."""
    outcome = _launch(_LEAVE_GROUP, means="none")
    if outcome.status == 0:
        return Verdict(Status.OK, "a guest's processes cannot leave their group")
    if outcome.status == 1 and os.uname().machine != "x86_64":
        return Verdict(Status.WARN, "the filter is for x86-64 only", "run guests on x86-64")
    return Verdict(
        Status.FAIL,
        f"no guest starts: {outcome.text}",
        "use a host kernel with CONFIG_SECCOMP_FILTER, and in a container a profile that allows filters",
    )


def check_landlock(_subject: Subject) -> Verdict:
    """Start a program as a guest is started and see that it cannot write to a file."""
    version = landlock.abi()
    fix = "boot the host with a newer kernel that has 'landlock' in its lsm= list (/sys/kernel/security/lsm)"
    if version < 1:
        if containment.means() == "mounts" and _launch(_WRITE_FILE, means="mounts").status == 0:
            return Verdict(Status.OK, "there is none: guests of root have mounts of their own, read-only")
        if os.geteuid() == 0:
            return Verdict(Status.FAIL, "there is none: guests of root are refused", f"{fix}; or be no root")
        return Verdict(Status.WARN, "there is none: guests can change all files of their user", fix)
    outcome = _launch(_WRITE_FILE, means="landlock")
    if outcome.status != 0:
        return Verdict(Status.FAIL, f"version {version} does not hold a guest back: {outcome.text}", fix)
    if version < _HAS_TRUNCATE:
        return Verdict(Status.WARN, f"version {version}: guests can cut their user's files short", fix)
    signals = "" if version >= _HAS_SIGNAL else ", but may signal their user's processes"
    return Verdict(Status.OK, f"version {version}: guests cannot change files that are not theirs{signals}")


def _launch(script: str, *, means: Means) -> Outcome:
    program = [sys.executable, "-I", "-S", "-c", script]
    return run_briefly(launch.command_line([], [means, "0", *program]))


def _ptrace_scope() -> int | None:
    try:
        with open(_PTRACE_SCOPE) as file:
            return int(file.read())
    except FileNotFoundError:
        return None
