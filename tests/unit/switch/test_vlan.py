"""Sets of VIDs, what a port may be told about VLANs, and tags in frames."""

from __future__ import annotations

import pytest

from umlab.switch.vlan import (
    CTAG,
    NO_VIDS,
    STAG,
    PortVlan,
    VidSet,
    check_vid,
    put_tag,
    tag_of,
    vid_of,
    with_vid,
    without_tag,
)

ADDRESSES = bytes(range(12))


class TestVidSet:
    @pytest.mark.parametrize(
        ("text", "vids"),
        [
            ("", []),
            ("1", [1]),
            ("4094", [4094]),
            ("10,20-23", [10, 20, 21, 22, 23]),
            ("7-7", [7]),
            ("20-22,10", [10, 20, 21, 22]),
            ("5,5,4-6", [4, 5, 6]),
            (" 1 , 3-4 ", [1, 3, 4]),
            ("007", [7]),
        ],
    )
    def test_text_is_read(self, text: str, vids: list[int]) -> None:
        assert list(VidSet.parse(text)) == vids

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("0", "VID 0 is not between 1 and 4094"),
            ("4095", "VID 4095 is not between 1 and 4094"),
            ("9999", "VID 9999 "),
            ("0-5", "VID 0 "),
            ("4000-4095", "VID 4095 "),
            ("1,4095,2", "VID 4095 "),
            ("20-10", "the range 20-10 runs backwards"),
            (",", "'' is no VID"),
            ("1,", "'' is no VID"),
            ("1 2", "'1 2' is no VID or range of VIDs, such as 10 or 20-29"),
            ("-1", "'-1' is no VID"),
            ("1-2-3", "'1-2-3' is no VID"),
            ("1 - 2", "'1 - 2' is no VID"),
            ("ten", "'ten' is no VID"),
            ("0x10", "'0x10' is no VID"),
            ("1_0", "'1_0' is no VID"),
            ("\N{ARABIC-INDIC DIGIT ONE}", "is no VID"),
            ("10000", "'10000' is no VID"),
            ("x" * 5000, "'" + "x" * 40 + "' is no VID"),
        ],
    )
    def test_anything_else_is_refused_and_named(self, text: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            VidSet.parse(text)

    @pytest.mark.parametrize("bits", [1, -1, 1 << 4095, 1 << 5000, 0b11])
    def test_bits_of_no_vlan_are_refused(self, bits: int) -> None:
        with pytest.raises(ValueError, match="between 1 and 4094"):
            VidSet(bits)

    @pytest.mark.parametrize("vid", [0, 4095, -1])
    def test_vid_of_no_vlan_is_refused(self, vid: int) -> None:
        with pytest.raises(ValueError, match=f"VID {vid} is not between 1 and 4094"):
            VidSet.of([1, vid])
        with pytest.raises(ValueError, match=f"VID {vid} is not between"):
            check_vid(vid)

    @pytest.mark.parametrize("text", ["", "1", "1-2", "1,3", "4093-4094", "10,20-29,4094", "1-4094"])
    def test_text_has_the_longest_ranges(self, text: str) -> None:
        assert str(VidSet.parse(text)) == text

    def test_it_is_a_set(self) -> None:
        one, other = VidSet.parse("1-5"), VidSet.of([9, 5, 4])
        assert (one | other, one & other) == (VidSet.parse("1-5,9"), VidSet.parse("4,5"))
        assert (one - other, len(one), bool(NO_VIDS), bool(one)) == (VidSet.parse("1-3"), 5, False, True)
        assert [vid in other for vid in (0, 4, 5, 6, 9, 4095, 5000)] == [False, True, True, False, True] + [
            False
        ] * 2
        assert list(other) == [4, 5, 9]
        assert {one: 1}[VidSet.parse("1,2,3,4,5")] == 1

    def test_all_vids_are_all(self) -> None:
        every = VidSet.of(range(1, 4095))
        assert (len(every), str(every)) == (4094, "1-4094")
        assert len(every - VidSet.of([1])) == 4093


class TestPortVlan:
    @pytest.mark.parametrize(
        ("pvid", "tagged", "untagged", "tpid", "complaint"),
        [
            (None, "", "", CTAG, "a member of at least one VLAN"),
            (1, "", "", CTAG, "a member of at least one VLAN"),
            (1, "1-10", "5,9", CTAG, "VLAN 5,9 cannot leave both with a tag and without"),
            (3, "1", "2", CTAG, "own VLAN 3 is neither among its tagged nor untagged VLANs"),
            (0, "1", "2", CTAG, "VID 0 is not between"),
            (4095, "1", "2", CTAG, "VID 4095 is not between"),
            (1, "1", "2", 0x9100, "a tag begins with 0x8100 or 0x88a8, not 0x9100"),
        ],
    )
    def test_what_cannot_be_is_refused(
        self, pvid: int | None, tagged: str, untagged: str, tpid: int, complaint: str
    ) -> None:
        with pytest.raises(ValueError, match=complaint):
            PortVlan(pvid, VidSet.parse(tagged), VidSet.parse(untagged), tpid)

    @pytest.mark.parametrize("vid", [0, 4095])
    def test_access_and_native_vlan_are_vlans(self, vid: int) -> None:
        with pytest.raises(ValueError, match=f"VID {vid} "):
            PortVlan.access(vid)
        with pytest.raises(ValueError, match=f"VID {vid} "):
            PortVlan.trunk(VidSet.of([1]), vid)

    def test_access_port(self) -> None:
        assert PortVlan.access(7, STAG) == PortVlan(7, NO_VIDS, VidSet.of([7]), STAG)

    @pytest.mark.parametrize("vids", ["10-12", "10,12"])
    def test_native_vlan_leaves_a_trunk_port_without_a_tag(self, vids: str) -> None:
        expected = PortVlan(11, VidSet.of([10, 12]), VidSet.of([11]))
        assert PortVlan.trunk(VidSet.parse(vids), 11) == expected
        assert PortVlan.trunk(VidSet.of([10])) == PortVlan(None, VidSet.of([10]))

    def test_trunk_port_of_no_vlan_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one VLAN"):
            PortVlan.trunk(NO_VIDS)

    @pytest.mark.parametrize(
        ("vlan", "mode"),
        [
            (PortVlan.access(1), "access"),
            (PortVlan.trunk(VidSet.of([1, 2])), "trunk"),
            (PortVlan.trunk(VidSet.of([1, 2]), 3), "trunk"),
            (PortVlan(1, VidSet.of([1, 2])), "trunk"),
            (PortVlan(None, NO_VIDS, VidSet.of([1])), "hybrid"),
            (PortVlan(1, NO_VIDS, VidSet.of([1, 2])), "hybrid"),
            (PortVlan(1, VidSet.of([3]), VidSet.of([1, 2])), "hybrid"),
            (PortVlan(3, VidSet.of([3]), VidSet.of([1])), "hybrid"),
        ],
    )
    def test_mode(self, vlan: PortVlan, mode: str) -> None:
        assert vlan.mode == mode

    def test_members_and_what_is_admitted_with_a_tag(self) -> None:
        hybrid = PortVlan(1, VidSet.of([3]), VidSet.of([1, 2]))
        assert hybrid.members == hybrid.admitted == VidSet.of([1, 2, 3])
        access = PortVlan.access(9)
        assert (access.members, access.admitted) == (VidSet.of([9]), NO_VIDS)


class TestTags:
    def test_tag_of_a_frame(self) -> None:
        frame = ADDRESSES + bytes.fromhex("8100 b00a 88a8 0014 0800")
        tci = tag_of(frame, CTAG)
        assert tci == 0xB00A
        assert vid_of(tci) == 10
        assert tag_of(frame, STAG) is None
        assert tag_of(without_tag(frame), STAG) == 0x0014
        assert tag_of(ADDRESSES + b"\x08\0" + bytes(46), CTAG) is None

    @pytest.mark.parametrize("size", [14, 15])
    def test_half_a_tag_is_none(self, size: int) -> None:
        assert tag_of((ADDRESSES + bytes.fromhex("8100 0001"))[:size], CTAG) is None

    def test_tags_are_put_in_front_and_taken_out(self) -> None:
        frame = ADDRESSES + bytes.fromhex("8100 000a 0800 01")
        two = put_tag(frame, STAG, 0xFFFF)
        assert two == ADDRESSES + bytes.fromhex("88a8 ffff 8100 000a 0800 01")
        assert without_tag(two) == frame

    def test_priority_stays_with_another_vid(self) -> None:
        assert with_vid(0xF00A, 0x0FFE) == 0xFFFE
        assert with_vid(0x0FFF, 1) == 1
