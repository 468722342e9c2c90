"""Classic BPF: what is refused, and what programs find in frames."""

from __future__ import annotations

import pytest

from umlab.switch.bpf import MAX_INSTRUCTIONS, Instruction, Program, parse_ddd, run

# Codes as ``tcpdump -ddd`` prints them (Linux include/uapi/linux/bpf_common.h).
LD_IMM, LD_MEM, LD_LEN = 0x00, 0x60, 0x80
LD_WORD, LD_HALF, LD_BYTE = 0x20, 0x28, 0x30
LD_WORD_X, LD_HALF_X, LD_BYTE_X = 0x40, 0x48, 0x50
LDX_IMM, LDX_MEM, LDX_LEN, LDX_MSH = 0x01, 0x61, 0x81, 0xB1
ST, STX = 0x02, 0x03
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0x04, 0xB4, 0x10)
BY_X = 0x08
JA, JEQ, JGT, JGE, JSET = 0x05, 0x15, 0x25, 0x35, 0x45
RET, RET_A = 0x06, 0x16
TAX, TXA = 0x07, 0x87

WORD = 0xFFFF_FFFF
#: Of one guest to another, HTTP, with an IPv4 header of 24 bytes.
HTTP = bytes.fromhex(
    "020000000002 020000000001 0800"
    "46000030 00014000 40060000 0a000001 0a000002 01010100"
    "c350 0050 00000000 00000000 5002 0000 00000000 aabbccdd"
)
#: What ``tcpdump -y EN10MB -ddd ip and tcp dst port 80`` prints.
HTTP_FILTER = """\
11
40 0 0 12
21 0 8 2048
48 0 0 23
21 0 6 6
40 0 0 20
69 4 0 8191
177 0 0 14
72 0 0 16
21 0 1 80
6 0 0 262144
6 0 0 0
"""


def program(*instructions: tuple[int, int] | tuple[int, int, int, int]) -> Program:
    """Make a program of (code, k) and (code, jt, jf, k)."""
    whole = [each if len(each) == 4 else (each[0], 0, 0, each[1]) for each in instructions]
    return Program(tuple(Instruction(*each) for each in whole))


def result(*instructions: tuple[int, int] | tuple[int, int, int, int], frame: bytes = b"") -> int:
    """Return what A is after some instructions; 0 as well where the program was ended."""
    return run(program(*instructions, (RET_A, 0)), frame)


class TestCheck:
    @pytest.mark.parametrize(
        ("instructions", "complaint"),
        [
            ([(0xFFFF, 0), (RET, 0)], "instruction 0: unknown code 0xffff"),
            ([(0x70, 0), (RET, 0)], "instruction 0: unknown code 0x0070"),  # a width of nothing
            ([(0x38, 0), (RET, 0)], "instruction 0: unknown code 0x0038"),
            ([(0x68, 0), (RET, 0)], "instruction 0: unknown code 0x0068"),  # half a word of memory
            ([(0xA1, 0), (RET, 0)], "instruction 0: unknown code 0x00a1"),  # MSH of a word
            ([(0x21, 0), (RET, 0)], "instruction 0: unknown code 0x0021"),  # X from the frame
            ([(NEG | BY_X, 0), (RET, 0)], "instruction 0: unknown code 0x008c"),
            ([(0xB4, 0), (RET, 0)], "instruction 0: unknown code 0x00b4"),
            ([(0x55, 0), (RET, 0)], "instruction 0: unknown code 0x0055"),  # JNE, of eBPF
            ([(JA | BY_X, 0), (RET, 0)], "instruction 0: unknown code 0x000d"),
            ([(0x0E, 0)], "instruction 0: unknown code 0x000e"),  # RET X
            ([(0x95, 0)], "instruction 0: unknown code 0x0095"),  # EXIT, of eBPF
            ([(RET, 1 << 32)], "instruction 0: a number does not fit"),
            ([(RET, -1)], "instruction 0: a number does not fit"),
            ([(-1, 0), (RET, 0)], "instruction 0: a number does not fit"),
            ([(1 << 16, 0), (RET, 0)], "instruction 0: a number does not fit"),
            ([(JEQ, 256, 0, 0), (RET, 0)], "instruction 0: a number does not fit"),
            ([(JEQ, 0, -1, 0), (RET, 0)], "instruction 0: a number does not fit"),
            ([(LD_IMM, 0), (JA, 1), (RET, 0)], "instruction 1: jumps outside"),
            (
                [(JA, WORD), (RET, 0)],
                "instruction 0: jumps backwards",
            ),  # as libpcap means it
            ([(JEQ, 1, 0, 0), (RET, 0)], "instruction 0: jumps outside"),
            ([(JSET | BY_X, 0, 1, 0), (RET, 0)], "instruction 0: jumps outside"),
            ([(JA, 0)], "instruction 0: jumps outside"),
            ([(RET, 0), (LD_IMM, 0)], "instruction 1: the last instruction does not return"),
            ([(DIV, 0), (RET, 0)], "instruction 0: divides by 0"),
            ([(MOD, 0), (RET, 0)], "instruction 0: divides by 0"),
            ([(LSH, 32), (RET, 0)], "instruction 0: shifts by 32 bits"),
            ([(RSH, WORD), (RET, 0)], "instruction 0: shifts by 4294967295 bits"),
            ([(LD_MEM, 16), (RET, 0)], "instruction 0: memory has no word 16"),
            ([(LDX_MEM, 16), (RET, 0)], "instruction 0: memory has no word 16"),
            ([(ST, 16), (RET, 0)], "instruction 0: memory has no word 16"),
            ([(STX, WORD), (RET, 0)], "instruction 0: memory has no word 4294967295"),
            ([(LD_HALF, 0xFFFF_F000), (RET, 0)], "instruction 0: reads outside of the frame"),  # SKF_AD_OFF
            ([(LD_BYTE, 0x8000_0000), (RET, 0)], "instruction 0: reads outside of the frame"),
            ([(LDX_MSH, 0xFFE0_0000), (RET, 0)], "instruction 0: reads outside of the frame"),  # SKF_LL_OFF
        ],
    )
    def test_instruction_that_may_not_run_is_refused_and_named(
        self, instructions: list[tuple[int, int]], complaint: str
    ) -> None:
        with pytest.raises(ValueError, match=complaint):
            program(*instructions)

    @pytest.mark.parametrize("count", [0, MAX_INSTRUCTIONS + 1])
    def test_program_of_no_or_too_many_instructions_is_refused(self, count: int) -> None:
        with pytest.raises(ValueError, match=f"1 to 4096 instructions, not {count}"):
            program(*[(RET, 0)] * count)

    def test_longest_program_runs_to_its_end(self) -> None:
        assert result(*[(ADD, 1)] * (MAX_INSTRUCTIONS - 1)) == MAX_INSTRUCTIONS - 1

    def test_limits_themselves_are_allowed(self) -> None:
        program(
            (LSH, 31), (RSH, 0), (DIV, 1), (MOD, WORD), (ST, 15), (LD_MEM, 15), (LD_BYTE, 0x7FFF_FFFF),
            (LD_BYTE_X, WORD), (LSH | BY_X, 99), (DIV | BY_X, 0), (JEQ, 0, 1, 0), (JA, 0), (RET, WORD),
        )  # fmt: skip


class TestLoads:
    @pytest.mark.parametrize(
        ("code", "value"), [(LD_WORD, 0x02030405), (LD_HALF, 0x0203), (LD_BYTE, 0x02)], ids=["w", "h", "b"]
    )
    def test_load_is_big_endian_and_inside_of_the_frame(self, code: int, value: int) -> None:
        frame = bytes(range(1, 6))
        assert result((code, 1), frame=frame) == value
        size = {LD_WORD: 4, LD_HALF: 2, LD_BYTE: 1}[code]
        for k in (len(frame) - size + 1, len(frame), 0x7FFF_FFFF):
            # Else A were what RET returns.
            assert run(program((code, k), (RET, 9)), frame) == 0
        assert run(program((code, len(frame) - size), (RET, 9)), frame) == 9

    @pytest.mark.parametrize(
        ("code", "value"), [(LD_WORD_X, 0x02030405), (LD_HALF_X, 0x0203), (LD_BYTE_X, 0x02)]
    )
    def test_load_from_x_is_at_the_sum(self, code: int, value: int) -> None:
        frame = bytes(range(1, 6))
        for x, k in ((1, 0), (0, 1)):
            assert result((LDX_IMM, x), (code, k), frame=frame) == value
        for x, k in ((5, 0), (0, 5), (2**31, 2**31)):
            assert run(program((LDX_IMM, x), (code, k), (RET, 9)), frame) == 0

    @pytest.mark.parametrize(("x", "k"), [(WORD, 2), (2, WORD), (WORD, WORD), (2**31, 2**31 + 1)])
    def test_place_that_is_past_all_numbers_is_not_at_the_beginning(self, x: int, k: int) -> None:
        """X + k in 32 bits would be inside."""
        assert run(program((LDX_IMM, x), (LD_BYTE_X, k), (RET, 9)), bytes(64)) == 0

    def test_msh_is_the_length_of_an_ip_header(self) -> None:
        assert result((LDX_MSH, 14), (TXA, 0), frame=HTTP) == 24
        assert run(program((LDX_MSH, len(HTTP)), (RET, 9)), HTTP) == 0

    def test_len_is_the_frames_or_what_it_is_said_to_be(self) -> None:
        for code in (LD_LEN, LDX_LEN):
            transfer = [(TXA, 0)] if code == LDX_LEN else []
            checked = program((code, 0), *transfer, (RET_A, 0))
            assert run(checked, HTTP) == len(HTTP)
            assert run(checked, HTTP, 1514) == 1514

    def test_memory_keeps_both_registers_and_is_0_before(self) -> None:
        assert result((LD_MEM, 3)) == 0
        stored = [(LD_IMM, 7), (ST, 15), (LDX_IMM, 5), (STX, 0), (LD_IMM, 0), (LDX_IMM, 0)]
        assert result(*stored, (LD_MEM, 15), (LDX_MEM, 0), (MUL | BY_X, 0)) == 35

    def test_registers_are_0_before_and_go_over_into_each_other(self) -> None:
        assert result() == 0
        assert result((LD_IMM, 4), (TXA, 0)) == 0
        assert result((LD_IMM, 4), (TAX, 0), (LD_IMM, 1), (TXA, 0)) == 4


class TestArithmetic:
    @pytest.mark.parametrize(
        ("operation", "a", "operand", "value"),
        [
            (ADD, WORD, 2, 1),
            (SUB, 1, 2, WORD),
            (MUL, 0x10001, 0x10001, 0x20001),
            (DIV, WORD, 2, 0x7FFF_FFFF),
            (MOD, WORD, 16, 15),
            (OR, 0x0F, 0xF0, 0xFF),
            (AND, 0x0F, 0x3C, 0x0C),
            (XOR, 0x0F, 0x3C, 0x33),
            (LSH, 3, 31, 0x8000_0000),
            (RSH, 0x8000_0000, 31, 1),
        ],
    )
    def test_operand_is_a_constant_or_x(self, operation: int, a: int, operand: int, value: int) -> None:
        assert result((LD_IMM, a), (operation, operand)) == value
        assert result((LD_IMM, a), (LDX_IMM, operand), (operation | BY_X, 1)) == value

    @pytest.mark.parametrize(("a", "value"), [(0, 0), (1, WORD), (0x8000_0000, 0x8000_0000)])
    def test_negation_is_of_32_bits(self, a: int, value: int) -> None:
        assert result((LD_IMM, a), (NEG, 0)) == value

    @pytest.mark.parametrize("operation", [DIV, MOD])
    def test_division_by_an_x_of_0_ends_the_program_with_nothing(self, operation: int) -> None:
        assert run(program((LD_IMM, 5), (operation | BY_X, 1), (RET, 9)), b"") == 0

    @pytest.mark.parametrize("operation", [LSH, RSH])
    @pytest.mark.parametrize("bits", [32, 33, 64, WORD])
    def test_shift_by_more_than_a_word_leaves_nothing(self, operation: int, bits: int) -> None:
        shift = program((LD_IMM, WORD), (LDX_IMM, bits), (operation | BY_X, 0), (ADD, 9), (RET_A, 0))
        assert run(shift, b"") == 9


class TestJumps:
    @pytest.mark.parametrize(
        ("test", "a", "operand", "holds"),
        [
            (JEQ, 5, 5, True),
            (JEQ, 5, 4, False),
            (JGT, 0x8000_0000, 1, True),  # unsigned
            (JGT, 5, 5, False),
            (JGE, 5, 5, True),
            (JGE, 4, 5, False),
            (JSET, 6, 2, True),
            (JSET, 6, 9, False),
        ],
    )
    def test_test_chooses_the_way(self, test: int, a: int, operand: int, holds: bool) -> None:
        ends = [(RET, 1), (RET, 2), (RET, 3)]
        expected = 3 if holds else 2
        assert run(program((LD_IMM, a), (test, 2, 1, operand), *ends), b"") == expected
        by_x = program((LD_IMM, a), (LDX_IMM, operand), (test | BY_X, 2, 1, WORD), *ends)
        assert run(by_x, b"") == expected

    def test_ja_goes_further_than_a_byte_says(self) -> None:
        assert run(program((JA, 1000), *[(RET, 1)] * 1000, (RET, 2)), b"") == 2


class TestParseDdd:
    def test_filter_of_tcpdump_finds_its_frames(self) -> None:
        http = parse_ddd(HTTP_FILTER)
        assert run(http, HTTP) == 262_144
        assert run(http, HTTP.replace(b"\x00\x50", b"\x00\x51", 1)) == 0
        assert run(http, HTTP[:12] + b"\x86\xdd" + HTTP[14:]) == 0
        assert [run(http, HTTP[:size]) for size in range(42)] == [0] * 42

    def test_ends_of_lines_and_spaces_do_not_matter(self) -> None:
        assert parse_ddd("1\r\n6 0 0  96 \r\n") == program((RET, 96)) == parse_ddd("1\n6 0 0 96")

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "line 1: not the number of instructions"),
            ("\n", "line 1: not the number of instructions"),
            ("x\n6 0 0 96", "line 1: not the number of instructions"),
            ("-1\n6 0 0 96", "line 1: not the number of instructions"),
            ("\N{ARABIC-INDIC DIGIT ONE}\n6 0 0 96", "line 1: not the number of instructions"),
            ("2\n6 0 0 96", "line 1: 2 instructions, and 1 follow"),
            ("1\n6 0 0 96\n6 0 0 96", "line 1: 1 instructions, and 2 follow"),
            ("1\n6 0 0", "line 2: not an instruction of four numbers"),
            ("1\n6 0 0 96 0", "line 2: not an instruction of four numbers"),
            ("2\n6 0 0 96\n6 0 0 0x60", "line 3: not an instruction of four numbers"),
            ("1\n6 0 0 1_0", "line 2: not an instruction of four numbers"),
            ("1\n6 0 0 -1", "line 2: not an instruction of four numbers"),
            ("1\n6 0 0 4294967296", "instruction 0: a number does not fit its field"),
            ("1\n6 0 0 99999999999", "line 2: not an instruction of four numbers"),
            ("1\n0 0 0 0", "instruction 0: the last instruction does not return"),
            ("0", "1 to 4096 instructions, not 0"),
        ],
    )
    def test_anything_else_is_refused(self, text: str, complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            parse_ddd(text)
