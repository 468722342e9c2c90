"""How many descriptors and datagrams this machine lets us have."""

from __future__ import annotations

import resource

from umlab.lab.doctor.finding import Status, Subject, Verdict

#: Descriptors of a port: its data socket and its control connection.
_PER_PORT = 2
#: What a daemon holds beside its ports.
_OTHERS = 64
_FEW_PORTS = 128
_QUEUE = "/proc/sys/net/unix/max_dgram_qlen"
_DEFAULT_QUEUE = 10


def check_descriptors(_subject: Subject) -> Verdict:
    """Count the ports for which there are descriptors: switches raise the soft limit to the hard one."""
    return judge_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def judge_descriptors(hard: int) -> Verdict:
    """Say for how many ports a hard limit is enough."""
    if hard == resource.RLIM_INFINITY:
        return Verdict(Status.OK, "as many as a switch wants")
    ports = max(0, hard - _OTHERS) // _PER_PORT
    detail = f"at most {hard} descriptors, for about {ports} ports of one switch"
    if ports >= _FEW_PORTS:
        return Verdict(Status.OK, detail)
    return Verdict(
        Status.WARN if ports else Status.FAIL,
        detail,
        "raise the hard limit: 'nofile' in /etc/security/limits.conf, LimitNOFILE= of a service, "
        "or the container's --ulimit nofile",
    )


def check_datagram_queue(_subject: Subject) -> Verdict:
    """Say how long a burst to a guest may be before frames wait in the switch."""
    with open(_QUEUE) as file:
        return judge_datagram_queue(int(file.read()))


def judge_datagram_queue(length: int) -> Verdict:
    """Say what a value of max_dgram_qlen means."""
    detail = f"{length}: a guest that is busy takes {length + 1} frames, more wait in its port's queue"
    if length < _DEFAULT_QUEUE:
        return Verdict(
            Status.WARN, detail, f"as root: sysctl -w net.unix.max_dgram_qlen={_DEFAULT_QUEUE} or more"
        )
    return Verdict(Status.OK, f"{detail}; root may raise net.unix.max_dgram_qlen for longer bursts")
