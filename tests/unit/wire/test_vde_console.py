"""The words of a VDE console: what a read means, and how replies lie in the stream."""

from __future__ import annotations

import pytest

from umlab.wire.vde_console import (
    END_OF_SESSION,
    PROMPT,
    Command,
    ConsolePort,
    banner,
    find_command,
    format_help,
    format_port,
    format_station,
    format_vlan,
    format_vlan_port,
    menu,
    read_command,
    serialize_reply,
)

PORT = ConsolePort(
    port_no=7,
    untagged=0,
    allocatable=True,
    current_user="root",
    user="NONE",
    group="NONE",
    rx=(12, 840),
    tx=(0, 0),
    module="unix prog",
    description="left user=root pid=123",
)


def test_greeting_ends_with_the_prompt() -> None:
    assert banner("umlab 1") == b"VDE switch V.2.3.2\n(umlab 1)\n\nvde$ "
    assert PROMPT.endswith(b"$ ")
    assert END_OF_SESSION == b"9999 END OF SESSION"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("port/print\n", "port/print"),
        ("port/print", "port/print"),
        (" \tport/print 1 \r\n", "port/print 1"),
        ("first\nsecond\n", "first"),
        ("first\0second\n", "first"),
        ("\n", ""),
        ("", ""),
        ("# port/print\n", ""),
        ("  # port/print\n", ""),
        ("\nsecond", ""),
    ],
)
def test_read_is_one_command(text: str, command: str) -> None:
    assert read_command(text) == command


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("port/create 5", ("port/create", "5")),
        ("port/create5", ("port/create", "5")),
        ("port/createauto", ("port/createauto", "")),
        ("port/create  1  2", ("port/create", "1  2")),
        ("port/crea", None),
        ("port", None),
        ("xport/create", None),
    ],
)
def test_path_is_what_the_line_begins_with(line: str, found: tuple[str, str] | None) -> None:
    assert find_command(line, ("port/createauto", "port/create")) == found


def test_reply_has_data_and_then_its_number() -> None:
    assert serialize_reply(0, "Success") == b"1000 Success\n"
    assert (
        serialize_reply(22, "Invalid argument", "") == b"0000 DATA END WITH '.'\n.\n1022 Invalid argument\n"
    )
    assert serialize_reply(0, "Success", "a\nb\n") == b"0000 DATA END WITH '.'\na\nb\n.\n1000 Success\n"


def test_reply_has_any_bytes_that_a_command_had() -> None:
    assert serialize_reply(0, "Success", b"\xff\n".decode("utf-8", "surrogateescape")).startswith(
        b"0000 DATA END WITH '.'\n\xff\n.\n"
    )


def test_help_has_three_columns() -> None:
    commands = [menu("port", "PORT STATUS"), Command("port/print", "all of them", "[N]"), Command("x", "y")]
    assert format_help(commands, "po") == (
        "COMMAND PATH       SYNTAX          HELP\n"
        "------------       --------------  ------------\n"
        "port               ============    PORT STATUS MENU\n"
        "port/print         [N]             all of them\n"
    )


def test_port_in_use() -> None:
    assert format_port(PORT) == (
        "Port 0007 untagged_vlan=0000 ACTIVE - Unnamed Allocatable\n"
        " Current User: root Access Control: (User: NONE - Group: NONE)\n"
        " IN:  pkts         12          bytes                  840\n"
        " OUT: pkts          0          bytes                    0\n"
        "  -- endpoint ID 0007 module unix prog   : left user=root pid=123\n"
    )


def test_port_that_waits_for_its_user() -> None:
    port = ConsolePort(1, 4093, False, "NONE", "lab", "staff", (0, 0), (0, 0), "", "")
    assert format_port(port).startswith(
        "Port 0001 untagged_vlan=4093 INACTIVE - NOT Unnamed Allocatable\n"
        " Current User: NONE Access Control: (User: lab - Group: staff)\n"
    )
    assert "endpoint" not in format_port(port)


def test_vlan_port_and_station() -> None:
    assert format_vlan(12) == "VLAN 0012\n"
    shown = format_vlan_port(3, tagged=False, active=True)
    assert shown == " -- Port 0003 tagged=0 active=1 status=Forwarding\n"
    shown = format_vlan_port(3, tagged=True, active=False)
    assert shown == " -- Port 0003 tagged=1 active=0 status=Learning\n"
    assert format_station(bytes.fromhex("fefd00000001"), 7, 12, 4) == (
        "Hash: 0000 Addr: fe:fd:00:00:00:01 VLAN 0007 to port: 012  age 4 secs\n"
    )
