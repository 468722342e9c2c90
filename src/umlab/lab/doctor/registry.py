"""All checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable

from umlab.lab.doctor import capture, containment, engine, guest, limit, memory, place
from umlab.lab.doctor.finding import Finding, Status, Subject, Verdict

Check = Callable[[Subject], Verdict]

_KERNEL = "kernel"
#: They look into a kernel that runs.
_OF_KERNEL: dict[str, Check] = {"transports": guest.check_transports, "modules": guest.check_modules}
_OF_MACHINE: dict[str, Check] = {
    "busybox": guest.check_busybox,
    "executable-memory": memory.check_executable,
    "memory": memory.check_room,
    "ptrace": containment.check_ptrace,
    "seccomp": containment.check_seccomp,
    "landlock": containment.check_landlock,
    "descriptors": limit.check_descriptors,
    "max-dgram-qlen": limit.check_datagram_queue,
    "runtime-directory": place.check_runtime,
    "state-directory": place.check_state,
    "libpcap": capture.check_libpcap,
    "engine": engine.check_engine,
}


def run_checks(subject: Subject) -> list[Finding]:
    """Look at everything, and return one finding for each check.

    Leaves nothing behind; takes well below three seconds, most of it for programs that it starts.  Where
    the kernel does not run, what only it could tell is left out.
    """
    kernel = _look(_KERNEL, guest.check_kernel, subject)
    checks = _OF_MACHINE if kernel.status is Status.FAIL else _OF_KERNEL | _OF_MACHINE
    return [kernel, *(_look(name, check, subject) for name, check in checks.items())]


def _look(name: str, check: Check, subject: Subject) -> Finding:
    try:
        verdict = check(subject)
    except OSError as error:
        verdict = Verdict(
            Status.WARN, f"cannot be looked at: {error}", "remove the cause, and run this again"
        )
    return Finding(name, *verdict)
