"""Who may attach: as people write it, and who is let in."""

from __future__ import annotations

import grp
import os
import pwd

import pytest

from umlab.daemon.access import find_group, find_user, make_access, read_mode, user_name
from umlab.transports.contract import PRIVATE, Access, Peer

STRANGER = Peer(1, 1_000_000, 1_000_001, None, (1_000_002, 1_000_003))


def test_nothing_said_is_private() -> None:
    assert make_access(None, None, [], []) == PRIVATE == Access(0o600)


def test_names_and_numbers_become_sorted_numbers() -> None:
    user, group = pwd.getpwuid(1), grp.getgrgid(1)
    made = make_access("0660", group.gr_name, ["70000", user.pw_name, "1"], [group.gr_name, "0"])
    assert made == Access(0o660, 1, (1, 70000), (0, 1))


@pytest.mark.parametrize(("text", "mode"), [("0660", 0o660), ("660", 0o660), ("0600", 0o600), ("000", 0)])
def test_mode_is_octal(text: str, mode: int) -> None:
    assert read_mode(text) == mode


@pytest.mark.parametrize("text", ["", "0o660", "1777", "0888", "u+rw", "66", "-660", "0660\n"])
def test_what_is_no_mode_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match="is no mode; write one like 0660"):
        read_mode(text)


@pytest.mark.parametrize("text", ["", "no such one", "4294967295", "9999999999", "-1", "\0", "x" * 300])
def test_who_is_not_there_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="there is no user '"):
        find_user(text)
    with pytest.raises(ValueError, match="there is no group '") as caught:
        find_group(text)
    assert len(str(caught.value)) < 100


def test_user_has_its_name_or_its_number() -> None:
    assert user_name(0) == pwd.getpwuid(0).pw_name
    assert user_name(4_000_000_000) == "4000000000"


@pytest.mark.parametrize("wrong", [{"mode": 0o1777}, {"mode": -1}, {"gid": -1}, {"uids": (1 << 32,)}])
def test_access_that_cannot_be_is_none(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be|is a number"):
        Access(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("access", "may"),
    [
        (PRIVATE, True),
        (Access(uids=(1,)), False),
        (Access(uids=(1, 1_000_000)), True),
        (Access(gids=(1, 1_000_000)), False),
        (Access(gids=(1_000_001,)), True),
        (Access(gids=(1_000_003,)), True),
        (Access(uids=(1,), gids=(1_000_002,)), True),
    ],
)
def test_list_is_of_users_or_of_any_of_their_groups(access: Access, may: bool) -> None:
    assert access.permits(STRANGER) is may


def test_we_and_root_and_who_is_nobody_at_all_always_may() -> None:
    closed = Access(uids=(1,))
    for peer in (None, Peer(1, 0, 5, None), Peer(1, os.geteuid(), 5, None)):
        assert closed.permits(peer)
