"""The kernel command line: what it says, and what is refused before it could say something else."""

from __future__ import annotations

from typing import Any

import pytest

from umlab.errors import LabError
from umlab.guest.cmdline import (
    AGENT_FD,
    MIN_MEMORY,
    NIC_FD,
    TERMINAL_FD,
    BessNic,
    DaemonNic,
    DiskRoot,
    FdNic,
    GuestSpec,
    HostRoot,
    Nic,
    TinyRoot,
    kernel_arguments,
    nic_settings,
)
from umlab.guest.inside.agent_line import SESSIONS

MAC = "02:00:00:00:00:0a"


#: What every guest has between its consoles and what is its own.
COMMON = [
    "ssl=null",
    *(f"ssl{line}=fd:{AGENT_FD + line}" for line in range(1 + 2 * SESSIONS)),
    "quiet",
    "pty.legacy_count=0",
    "initrd=/run/g/root",
    "umlab.name=g",
    "umlab.share=/run/g/share",
]


def words(spec: GuestSpec, uml_dir: str = "/run/g", **given: Any) -> list[str]:
    return kernel_arguments(spec, uml_dir=uml_dir, initrd="/run/g/root", share="/run/g/share", **given)


def arguments(**fields: Any) -> list[str]:
    return words(GuestSpec("g", **fields))


def own(**fields: Any) -> list[str]:
    """Return what comes behind what every guest has."""
    whole = arguments(**fields)
    return whole[whole.index(COMMON[-1]) + 1 :]


def test_tiny_guest_has_console_agent_and_initrd() -> None:
    assert arguments(memory=96 << 20) == [
        "mem=98304K",
        "umid=g",
        "uml_dir=/run/g/",
        "con=null",
        "con0=null,fd:1",
        *COMMON,
    ]


def test_terminal_is_the_second_console() -> None:
    arguments = words(GuestSpec("g"), terminal=True)
    assert arguments.index(f"con1=fd:{TERMINAL_FD}") > arguments.index("con=null")


def test_socket_for_notifications_is_told_before_what_the_guest_is_given_besides() -> None:
    spec = GuestSpec("g", extra=("mconsole=notify:/mine",))
    whole = words(spec, notify="/run/.g")
    assert [word for word in whole if word.startswith("mconsole")] == [
        "mconsole=notify:/run/.g",
        "mconsole=notify:/mine",
    ]


@pytest.mark.parametrize("path", ["relative", "/a b", "/" + "x" * 107])
def test_unusable_socket_for_notifications_is_refused(path: str) -> None:
    with pytest.raises(LabError, match="notify"):
        words(GuestSpec("g"), notify=path)


def test_disk_root_is_ubd0_with_its_backing() -> None:
    assert own(root=DiskRoot("/d/cow", "/d/base")) == [
        "ubd0=/d/cow,/d/base",
        "umlab.root=disk",
        "umlab.init=/sbin/init",
    ]
    assert own(root=DiskRoot("/d/disk", init=None)) == ["ubd0=/d/disk", "umlab.root=disk"]


def test_host_root_has_its_shared_folders_and_where_the_modules_are() -> None:
    assert own(root=HostRoot(shared=("/a", "/b/c")), modules_directory="/k/modules") == [
        "umlab.root=host",
        "umlab.shared=/a",
        "umlab.shared=/b/c",
        "umlab.modules=/k/modules",
    ]


@pytest.mark.parametrize(
    ("nic", "argument"),
    [
        (DaemonNic("/s/ctl"), "eth0=daemon,,unix,/s/ctl"),
        (DaemonNic("/s/ctl", MAC), f"eth0=daemon,{MAC},unix,/s/ctl"),
        (DaemonNic("/s/ctl", data_path="/s/data"), "eth0=daemon,,unix,/s/ctl,/s/data"),
        (BessNic("/s/bess"), "vec0:transport=bess,dst=/s/bess"),
        (BessNic("/s/bess", MAC, 9000), f"vec0:transport=bess,dst=/s/bess,mac={MAC},mtu=9000"),
        (FdNic("lan"), f"vec0:transport=fd,fd={TERMINAL_FD}"),
        (FdNic("lan", MAC, 16000), f"vec0:transport=fd,fd={TERMINAL_FD},mac={MAC},mtu=16000"),
    ],
)
def test_nic_becomes_its_transport(nic: Nic, argument: str) -> None:
    assert arguments(nics=(nic,))[-1] == argument


def test_inherited_sockets_come_behind_the_terminal() -> None:
    spec = GuestSpec("g", nics=(FdNic("a"), BessNic("/b"), FdNic("c")))
    whole = words(spec, terminal=True)
    assert whole[-3:] == [
        f"vec0:transport=fd,fd={NIC_FD}",
        "vec1:transport=bess,dst=/b",
        f"vec2:transport=fd,fd={NIC_FD + 1}",
    ]
    assert [setting for _, setting in nic_settings(spec.nics)] == [word[5:] for word in whole[-3:]]


def test_each_kind_of_nic_counts_by_itself_and_extra_comes_last() -> None:
    nics = (DaemonNic("/a"), BessNic("/b"), DaemonNic("/c"), FdNic("d"))
    names = [word.replace(":", "=").partition("=")[0] for word in own(nics=nics, extra=("con2=pty",))]
    assert names == ["eth0", "vec0", "eth1", "vec1", "con2"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kernel": "linux"}, "kernel"),
        ({"kernel": "/a b"}, "kernel"),
        ({"kernel": "/a\ud800"}, "kernel"),
        ({"memory": MIN_MEMORY - 1}, "memory"),
        ({"writable": ("relative",)}, "writable"),
        ({"nics": (DaemonNic("/a,b"),)}, "control_path"),
        ({"nics": (DaemonNic("/a b"),)}, "control_path"),
        ({"nics": (DaemonNic("/a\nb"),)}, "control_path"),
        ({"nics": (DaemonNic('/a"b'),)}, "control_path"),
        ({"nics": (DaemonNic(""),)}, "control_path"),
        ({"nics": (DaemonNic("/" + "x" * 107),)}, "107"),
        ({"nics": (DaemonNic("/a", data_path="/b,c"),)}, "data_path"),
        ({"nics": (DaemonNic("/a", mac="02:00:00:00:00:00,unix,/evil"),)}, "mac"),
        ({"nics": (DaemonNic("/a", mac="01:00:00:00:00:00"),)}, "mac"),
        ({"nics": (BessNic("/a=b"),)}, "path"),
        ({"nics": (BessNic("/a,b"),)}, "path"),
        ({"nics": (BessNic("/é" + "é" * 53),)}, "107"),
        ({"nics": (BessNic("/a", mac=""),)}, "mac"),
        ({"nics": (BessNic("/a", mtu=575),)}, "mtu"),
        ({"nics": (BessNic("/a", mtu=65535),)}, "mtu"),
        ({"nics": (FdNic("a,b"),)}, "switch name"),
        ({"nics": (FdNic("a", mac="01:00:00:00:00:00"),)}, "mac"),
        ({"nics": (FdNic("a", mtu=65535),)}, "mtu"),
        ({"root": TinyRoot(("../evil",))}, "module"),
        ({"root": HostRoot(("a b",))}, "module"),
        ({"root": HostRoot(shared=("relative",))}, "shared folder"),
        ({"root": HostRoot(shared=("/a b",))}, "shared folder"),
        ({"root": HostRoot(shared=("/a,b",))}, "shared folder"),
        ({"root": DiskRoot("/a", init="init")}, "init"),
        ({"root": DiskRoot("/a", init="/a b")}, "init"),
        ({"root": DiskRoot("/a:b")}, "root image"),
        ({"root": DiskRoot("/a", "/b,c")}, "backing image"),
        ({"extra": ("",)}, "argument"),
        ({"extra": ("a b",)}, "argument"),
        ({"extra": ("a\x7f",)}, "argument"),
        ({"extra": ("umid=other",)}, "umid"),
        ({"extra": ("ubd0:x",)}, "ubd0"),
    ],
)
def test_value_that_would_break_out_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(LabError, match=named):
        arguments(**fields)


def test_path_of_107_bytes_is_taken() -> None:
    path = "/" + "x" * 106
    assert arguments(nics=(BessNic(path),))[-1].endswith(path)


@pytest.mark.parametrize("umid", ["", "x" * 25, "-a", ".a", "a/b", "a b", "a\n", "ä", "a,b"])
def test_unusable_umid_is_refused(umid: str) -> None:
    with pytest.raises(LabError, match="guest name"):
        GuestSpec(umid)


@pytest.mark.parametrize("uml_dir", ["relative", "/a b"])
def test_unusable_run_directory_is_refused(uml_dir: str) -> None:
    with pytest.raises(LabError, match="run directory"):
        words(GuestSpec("g"), uml_dir)


def test_command_line_that_the_kernel_would_cut_is_refused() -> None:
    with pytest.raises(LabError, match="4095"):
        arguments(extra=("x" * 4000,))
