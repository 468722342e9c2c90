"""Names and settings of devices: each kind as the kernel takes it, and what is refused with which hint."""

from __future__ import annotations

import pytest

from umlab.errors import LabError
from umlab.guest.cmdline import DaemonNic
from umlab.guest.device import (
    Console,
    DeviceName,
    Disk,
    LegacyNic,
    Memory,
    Setting,
    parse_device,
    parse_setting,
    request,
    serialize_setting,
    size_text,
)
from umlab.guest.vector import VectorNic

MAC = "02:00:00:00:00:01"


@pytest.mark.parametrize(
    ("text", "name", "letters"),
    [
        ("eth0", "eth0", ""),
        ("vec12", "vec12", ""),
        ("ubd0", "ubda", ""),
        ("ubdb", "ubdb", ""),
        ("ubd15rs", "ubdp", "rs"),
        ("ubdcd", "ubdc", "d"),
        ("con15", "con15", ""),
        ("ssl63", "ssl63", ""),
        ("mem", "mem", ""),
    ],
)
def test_device_has_the_name_that_it_has_in_the_guest(text: str, name: str, letters: str) -> None:
    device, found = parse_device(text)
    assert (str(device), found) == (name, letters)
    assert parse_device(name) == (device, "")
    assert device.is_nic == name.startswith(("eth", "vec"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is no device ''"),
        ("eth", "such as eth1 or ubdb"),
        ("eth01", "there is no device 'eth01'"),
        ("eth1000", "there is no device"),
        ("eth\u0661", "there is no device"),
        ("ubdq", "the last one of its kind is ubdp"),
        ("ubd16", "the last one of its kind is ubdp"),
        ("con16", "the last one of its kind is con15"),
        ("ssl64", "the last one of its kind is ssl63"),
        ("mem0", "there is no device"),
        ("usb0\n" * 50, "there is no device 'usb0"),
    ],
)
def test_what_is_no_device(text: str, reason: str) -> None:
    with pytest.raises(LabError, match=reason) as caught:
        parse_device(text)
    assert len(str(caught.value)) < 250


SETTINGS: list[tuple[str, str, Setting, str]] = [
    ("eth1", "daemon,,unix,/x/c", DaemonNic("/x/c"), "config eth1=daemon,,unix,/x/c"),
    (
        "eth1",
        f"daemon,{MAC},unix,/x/c,/x/d",
        DaemonNic("/x/c", MAC, "/x/d"),
        f"config eth1=daemon,{MAC},unix,/x/c,/x/d",
    ),
    ("eth2", f"vde,/x,{MAC},3", LegacyNic("vde", ("/x", MAC, "3")), f"config eth2=vde,/x,{MAC},3"),
    ("eth2", "mcast", LegacyNic("mcast"), "config eth2=mcast"),
    (
        "vec0",
        f"transport=bess,dst=/x/b,mac={MAC},mtu=9000",
        VectorNic("bess", (("dst", "/x/b"), ("mac", MAC), ("mtu", "9000"))),
        f"config vec0:transport=bess,dst=/x/b,mac={MAC},mtu=9000",
    ),
    (
        "vec0",
        "transport=l2tpv3,dst=::1,udp=1,srcport=1706,dstport=1707,rx_session=0x1,tx_session=2",
        VectorNic(
            "l2tpv3",
            (
                *(("dst", "::1"), ("udp", "1"), ("srcport", "1706"), ("dstport", "1707")),
                *(("rx_session", "0x1"), ("tx_session", "2")),
            ),
        ),
        "config vec0:transport=l2tpv3,dst=::1,udp=1,srcport=1706,dstport=1707,rx_session=0x1,tx_session=2",
    ),
    ("vec1", "transport=tap", VectorNic("tap", ()), "config vec1:transport=tap"),
    ("ubdb", "/a.img", Disk("/a.img"), "config ubdb=/a.img"),
    ("ubdb", "/a.cow,/a.img,s-1", Disk("/a.cow", "/a.img", serial="s-1"), "config ubdb=/a.cow,/a.img,s-1"),
    ("ubdb", "/a.img,,s-1", Disk("/a.img", serial="s-1"), "config ubdb=/a.img,,s-1"),
    (
        "ubdb",
        "rsdct=/a.img",
        Disk("/a.img", None, True, True, True, True, True),
        "config ubdbrsdct=/a.img",
    ),
    ("con2", "pts", Console("pts"), "config con2=pts"),
    ("ssl5", "null,tty:/dev/tty9", Console("null", "tty:/dev/tty9"), "config ssl5=null,tty:/dev/tty9"),
    ("con3", "port:9000", Console("port:9000"), "config con3=port:9000"),
    ("mem", "-16M", Memory(16 << 20, "-"), "config mem=-16M"),
    ("mem", "96M", Memory(96 << 20), "config mem=96M"),
    ("mem", "1G", Memory(1 << 30), "config mem=1G"),
]


@pytest.mark.parametrize(("device", "text", "setting", "sent"), SETTINGS)
def test_setting_is_read_written_and_sent(device: str, text: str, setting: Setting, sent: str) -> None:
    name, letters = parse_device(device)
    assert parse_setting(name, text, letters) == setting
    assert serialize_setting(setting) == text.replace("rsdct", "".join(sorted("rsdct", key="rsdct".index)))
    assert request(name, setting) == sent


def test_letters_behind_the_name_are_those_before_the_file() -> None:
    name, letters = parse_device("ubd1rc")
    assert parse_setting(name, "/x", letters) == parse_setting(name, "rc=/x")
    assert parse_setting(name, "s=/x", letters) == Disk("/x", read_only=True, sync=True, shared=True)


def test_address_of_any_nic_is_found() -> None:
    for device, text in (
        ("eth0", f"daemon,{MAC},unix,/x"),
        ("eth0", f"mcast,{MAC}"),
        ("eth0", f"tuntap,tap0,{MAC}"),
        ("vec0", f"transport=tap,mac={MAC}"),
    ):
        assert parse_setting(parse_device(device)[0], text).mac == MAC  # type: ignore[union-attr]
    for text in ("mcast", "mcast,", "slip,192.168.0.1", "vde,/x"):
        assert parse_setting(DeviceName("eth"), text).mac is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("device", "text", "reason"),
    [
        ("eth0", "", "no transport '' for an eth device, only daemon, vde"),
        ("eth0", "bess,/x", "no transport 'bess'"),
        ("eth0", "daemon", r"write daemon,\[MAC\],unix,PATH"),
        ("eth0", "daemon,,tcp,/x", r"write daemon,\[MAC\],unix,PATH"),
        ("eth0", "daemon,,unix,/x,/y,z", r"write daemon,\[MAC\],unix,PATH"),
        ("eth0", "daemon,,unix,x", "control_path 'x' is not an absolute path"),
        ("eth0", "daemon,,unix,/" + "x" * 107, "has 108 bytes, a socket path has at most 107"),
        ("eth0", "daemon,01:00:00:00:00:00,unix,/x", "is not a unicast address"),
        ("eth0", "daemon,00:00:00:00:00:00,unix,/x", "is not a unicast address"),
        ("eth0", "mcast,ff:ff:ff:ff:ff:ff", "is not a unicast address"),
        ("eth0", "daemon,,unix,/x\n", r"'\\n' cannot be in a device's setting"),
        ("eth0", "daemon,,unix,/x\0", r"'\\x00' cannot be in a device's setting"),
        ("eth0", "daemon,,unix,/\udcff", "cannot be in a device's setting"),
        ("vec0", "", "'' is not of the form KEY=VALUE"),
        ("vec0", "transport=bess,dst", "'dst' is not of the form KEY=VALUE"),
        ("vec0", "transport=bess,dst=/a=b", "the value of dst has a second '='"),
        ("vec0", "transport=bess,dst=/a,dst=/b", "dst is there twice"),
        ("vec0", "dst=/a", "transport= is missing"),
        ("vec0", "transport=carrier", "no transport 'carrier'; there are bess, fd"),
        ("vec0", "transport=bess", "bess needs dst="),
        ("vec0", "transport=l2tpv3,src_port=1", "no option 'src_port'; the kernel calls it srcport"),
        ("vec0", "transport=bess,dst=/a,src_port=1", "no option 'src_port'; it takes dst, src"),
        ("vec0", "transport=bess,dst=/a,depth=many", "depth 'many' is not a number"),
        ("vec0", "transport=bess,dst=/a,mtu=10", "mtu 10 is not between 576 and 65534"),
        ("vec0", "transport=bess,dst=/a,mtu=0x600", "mtu 0 is not between"),
        ("vec0", "transport=bess,dst=a", "dst 'a' is not an absolute path"),
        ("vec0", "transport=bess,dst=/a,mac=x", "mac 'x' is not a unicast address"),
        ("vec0", ",".join(f"k{n}=1" for n in range(21)), "21 assignments, the kernel has room for 20"),
        ("ubdb", "a.img", "image 'a.img' is not an absolute path"),
        ("ubdb", "/a:b", "must not contain ':'"),
        ("ubdb", "/a,b", "backing image 'b' is not an absolute path"),
        ("ubdb", "/a,/b,c,d", r"write FILE\[,BACKING\[,SERIAL\]\]"),
        ("ubdb", "/a,/b,x y", "serial 'x y' is not of at most 20"),
        ("ubdb", "d=/a,/b", "cannot have the letter d"),
        ("ubdb", "x=/a", "is not an absolute path"),
        ("ubdb", "/" + "a" * 600, "a request of 613 bytes, 511 are possible"),
        ("con2", "", "'' is no channel; write null, none"),
        ("con2", "stdio", "'stdio' is no channel"),
        ("con2", "null,", "'' is no channel"),
        ("con2", "port:0", "is no TCP port"),
        ("con2", "port:99999", "is no TCP port"),
        ("con2", "tty:x", "terminal 'x' is not an absolute path"),
        ("con2", "fd:", "'fd:' is no channel"),
        ("mem", "", "is no amount of memory such as 96M$"),
        ("mem", "1.5G", "is no amount of memory"),
        ("mem", "0", "0 bytes of memory are no whole pages"),
        ("mem", "1K", "1024 bytes of memory are no whole pages"),
    ],
)
def test_what_the_kernel_would_not_take_as_it_is_meant(device: str, text: str, reason: str) -> None:
    with pytest.raises(LabError, match=reason) as caught:
        parse_setting(parse_device(device)[0], text)
    assert str(caught.value).startswith(f"{device}: ")


def test_sizes_are_written_short() -> None:
    assert [size_text(size) for size in (1 << 30, 96 << 20, 4096, 5000)] == ["1G", "96M", "4K", "5000"]
