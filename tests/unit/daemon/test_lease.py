"""Which ports a reboot leaves behind, and which look like it and are not."""

from __future__ import annotations

import pytest

from umlab._boot import Boot
from umlab.daemon.lease import LeaseBook
from umlab.transports.contract import Peer


def guest(pid: int, boot: int | None) -> Peer:
    return Peer(pid, 1000, 1000, None if boot is None else Boot(boot, 0))


@pytest.fixture
def book() -> LeaseBook:
    return LeaseBook()


def test_reboot_outdates_every_port_of_earlier_boots(book: LeaseBook) -> None:
    for port_no, boot in ((3, 71), (1, 70), (2, 71)):
        book.grant(port_no, guest(500, boot))
    assert book.outdated_by(guest(500, 72)) == [1, 2, 3]
    assert book.outdated_by(guest(500, 71)) == [1]


def test_second_nic_of_one_boot_outdates_nothing(book: LeaseBook) -> None:
    book.grant(1, guest(500, 70))
    assert book.outdated_by(guest(500, 70)) == []


def test_other_guests_keep_their_ports_even_with_the_same_inode(book: LeaseBook) -> None:
    book.grant(1, guest(500, 70))
    book.grant(2, guest(501, 71))
    assert book.outdated_by(guest(501, 72)) == [2]
    assert book.outdated_by(guest(502, 70)) == []


def test_port_that_was_released_is_forgotten(book: LeaseBook) -> None:
    book.grant(1, guest(500, 70))
    book.release(1)
    book.release(1)
    assert book.outdated_by(guest(500, 71)) == []
    book.grant(1, guest(501, 70))
    assert book.outdated_by(guest(500, 71)) == []


@pytest.mark.parametrize("holder", [None, guest(500, None), guest(0, None)])
def test_holder_without_a_known_boot_keeps_its_port(book: LeaseBook, holder: Peer | None) -> None:
    book.grant(1, holder)
    assert book.outdated_by(guest(500, 71)) == []
    book.release(1)


@pytest.mark.parametrize("newcomer", [None, guest(500, None), guest(0, None)])
def test_newcomer_without_a_known_boot_outdates_nothing(book: LeaseBook, newcomer: Peer | None) -> None:
    book.grant(1, guest(500, 70))
    assert book.outdated_by(newcomer) == []
