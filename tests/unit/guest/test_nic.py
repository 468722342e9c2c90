"""NICs on command lines, ours and those that others have written."""

from __future__ import annotations

import os

import pytest

from support.kernel_process import kernel_process
from umlab.guest.nic import CommandLineNic, nics_of, parse_nics

MAC = "02:00:00:00:00:0a"


@pytest.mark.parametrize(
    ("word", "nic"),
    [
        ("eth0=daemon", ("daemon", None, "/tmp/uml.ctl")),
        ("eth1=daemon,02:00:00:00:00:0A,unix,/s.ctl", ("daemon", MAC, "/s.ctl")),
        ("eth2=daemon,,unix,/s.ctl,/s.data", ("daemon", None, "/s.ctl")),
        (f"eth3=vde,/run/vde,{MAC},1", ("vde", MAC, "/run/vde")),
        (f"eth4=tuntap,tap0,{MAC}", ("tuntap", MAC, None)),
        (f"eth5=mcast,{MAC},239.192.168.1,1102,1", ("mcast", MAC, None)),
        (f"vec0:transport=bess,dst=/s.bess,mac={MAC}", ("bess", MAC, "/s.bess")),
        ("vec1:transport=fd,fd=5,mac=x", ("fd", None, None)),
        ("vec2:depth=1", ("", None, None)),
        ("eth6=", ("", None, None)),
    ],
)
def test_nic_is_read(word: str, nic: tuple[str, str | None, str | None]) -> None:
    (read,) = parse_nics([word])
    assert (read.transport, read.mac, read.path) == nic
    assert (read.name, read.setting) == (word[:4], word[5:])


def test_other_words_are_none_and_the_first_of_two_counts() -> None:
    words = ["eth10=mcast", "eth2=daemon", "vec0:transport=bess", "eth2=vde", "xeth1=daemon", "eth", "vec0=x"]
    assert [(nic.name, nic.transport) for nic in parse_nics([*words, "eth:1=daemon"])] == [
        ("eth2", "daemon"),
        ("eth10", "mcast"),
        ("vec0", "bess"),
    ]


def test_running_kernel_tells_its_nics() -> None:
    with kernel_process("umid=a", "eth0=daemon,,unix,/s\udcff") as pid:
        assert nics_of(pid) == [CommandLineNic("eth0", "daemon,,unix,/s\udcff", "daemon", None, "/s\udcff")]


def test_what_is_no_kernel_tells_nothing() -> None:
    assert nics_of(os.getpid()) is None
    assert nics_of(2**22 + 1) is None
