"""The FDB: bounds, order, ageing, ports."""

from __future__ import annotations

import pytest

from umlab.switch.fdb import Fdb, FdbEntry

AGEING = 100


def mac(number: int) -> bytes:
    return b"\x02" + number.to_bytes(5, "big")


def learn(fdb: Fdb, number: int, port_no: int, now_ns: int) -> None:
    assert fdb.add(mac(number), port_no, now_ns) is not None


def test_find_learnt_address_gives_its_port() -> None:
    fdb = Fdb(10, AGEING)
    learn(fdb, 1, 7, 0)
    record = fdb.find(mac(1))
    assert record is not None
    assert record.port_no == 7
    assert fdb.find(mac(2)) is None
    assert len(fdb) == 1


def test_add_to_full_table_is_refused_until_something_leaves() -> None:
    fdb = Fdb(2, AGEING)
    learn(fdb, 1, 1, 0)
    learn(fdb, 2, 2, 0)
    assert fdb.add(mac(3), 1, 0) is None
    assert fdb.find(mac(3)) is None
    fdb.remove_port(2)
    learn(fdb, 3, 1, 0)


def test_expire_entry_is_dead_when_older_than_the_ageing_time_not_before() -> None:
    fdb = Fdb(10, AGEING)
    learn(fdb, 1, 1, 5)
    assert list(fdb.expire(5 + AGEING)) == []
    assert fdb.entries(5 + AGEING) == [FdbEntry(mac(1), 1, 5)]
    assert fdb.entries(5 + AGEING + 1) == []
    assert [record.mac for record in fdb.expire(5 + AGEING + 1)] == [mac(1)]
    assert fdb.find(mac(1)) is None


def test_expire_touched_entry_lives_on_and_moves_to_the_end() -> None:
    fdb = Fdb(10, AGEING)
    learn(fdb, 1, 1, 0)
    learn(fdb, 2, 1, 10)
    record = fdb.find(mac(1))
    assert record is not None
    fdb.touch(record, 20)
    assert [entry.mac for entry in fdb.entries(20)] == [mac(2), mac(1)]
    assert [dead.mac for dead in fdb.expire(10 + AGEING + 1)] == [mac(2)]
    assert fdb.next_expiry_ns() == 20 + AGEING + 1


def test_expire_after_the_table_was_empty_still_finds_later_entries() -> None:
    fdb = Fdb(10, AGEING)
    assert list(fdb.expire(1000)) == []
    learn(fdb, 1, 1, 1000)
    assert list(fdb.expire(1000 + AGEING)) == []
    assert len(fdb.expire(1000 + AGEING + 1)) == 1


def test_move_changes_the_port_that_takes_the_address_with_it() -> None:
    fdb = Fdb(10, AGEING)
    learn(fdb, 1, 1, 0)
    learn(fdb, 2, 1, 0)
    record = fdb.find(mac(1))
    assert record is not None
    fdb.move(record, 2)
    fdb.remove_port(1)
    assert fdb.find(mac(1)) is record
    assert fdb.find(mac(2)) is None
    fdb.remove_port(2)
    assert len(fdb) == 0


def test_remove_port_without_addresses_does_nothing() -> None:
    fdb = Fdb(10, AGEING)
    learn(fdb, 1, 1, 0)
    fdb.remove_port(9)
    assert len(fdb) == 1


def test_expired_address_is_gone_from_its_port_too() -> None:
    fdb = Fdb(10, AGEING)
    learn(fdb, 1, 1, 0)
    fdb.expire(AGEING + 1)
    learn(fdb, 1, 2, AGEING + 1)
    fdb.remove_port(1)
    assert fdb.find(mac(1)) is not None


def test_next_expiry_of_empty_table_is_none() -> None:
    assert Fdb(10, AGEING).next_expiry_ns() is None


@pytest.mark.parametrize("size", [65_536])
def test_expire_of_a_full_table_piecemeal_takes_linear_work(size: int) -> None:
    """Taking the first of a plain dict again and again made this quadratic: minutes, not a moment."""
    fdb = Fdb(size, AGEING)
    for number in range(size):
        learn(fdb, number, 1, number)
    removed = sum(len(fdb.expire(now_ns)) for now_ns in range(AGEING, size + AGEING + 1))
    assert removed == size


def test_sort_puts_what_was_added_late_in_its_place() -> None:
    fdb = Fdb(10, AGEING)
    for number, seen in ((1, 50), (2, 10), (3, 30)):
        learn(fdb, number, 1, seen)
    fdb.sort()
    assert [entry.mac for entry in fdb.entries(50)] == [mac(2), mac(3), mac(1)]
    assert fdb.next_expiry_ns() == 10 + AGEING + 1
    assert [record.mac for record in fdb.expire(31 + AGEING)] == [mac(2), mac(3)]


def test_configure_smaller_forgets_the_oldest_on_their_ports_too() -> None:
    fdb = Fdb(10, AGEING)
    for number in range(4):
        learn(fdb, number, number % 2, number)
    fdb.configure(1, AGEING)
    assert fdb.entries(5) == [FdbEntry(mac(3), 1, 3)]
    assert fdb.add(mac(9), 1, 5) is None
    fdb.remove_port(0)
    fdb.remove_port(1)
    assert len(fdb) == 0
    fdb.configure(0, AGEING)
    assert fdb.add(mac(9), 1, 5) is None


def test_configure_shorter_ageing_finds_the_dead_at_once() -> None:
    fdb = Fdb(10, AGEING)
    learn(fdb, 1, 1, 0)
    assert fdb.expire(AGEING) == []
    fdb.configure(10, 5)
    assert fdb.entries(AGEING) == []
    assert [record.mac for record in fdb.expire(AGEING)] == [mac(1)]
