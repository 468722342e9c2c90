"""Classic BPF beside those who run it too: libpcap, the kernel's sockets, tcpdump."""

from __future__ import annotations

import ctypes
import random
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bpf_programs import CODES, random_program
from support.pcapng_blocks import read_packets
from support.require import require_program, unavailable
from umlab.switch.bpf import MEMORY_WORDS, Instruction, Program, parse_ddd, run
from umlab.wire.pcapng import INBOUND, serialize_interface, serialize_packet, serialize_section

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

_INSTRUCTION = struct.Struct("=HBBI")
#: Linux include/uapi/asm-generic/socket.h.
_SO_ATTACH_FILTER = 26
_WORD = 0xFFFF_FFFF
_ST = 0x02
#: A word of memory that was never written is 0 for us; others have what was there, or refuse to read it.
_CLEAR = tuple(Instruction(_ST, 0, 0, word) for word in range(MEMORY_WORDS))

FILTERS = [
    "ip",
    "arp or rarp",
    "icmp",
    "tcp port 80",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "vlan 10",
    "vlan 10 and vlan 20",
    "vlan and tcp",
    "ether host 02:00:00:00:00:01",
    "ether multicast and not broadcast",
    "net 10.0.0.0/24 and not host 10.0.0.2",
    "ip6 and udp port 53",
    "ip[6:2] & 0x1fff != 0",
    "udp[8:2] > 0x100 or greater 200",
    "len <= 60 or less 70",
    "ether[12:2] = 0x88cc",
    "ip[2:2] % 3 = 1",
    "tcp[(tcp[12] >> 4) * 4] = 0x41",
    "ether proto 0x88b5 and ether[0] & 1 = 1",
]


@pytest.fixture(scope="module")
def libpcap() -> ctypes.CDLL:
    """The library that compiles filters, and runs them where no kernel does."""
    try:
        return ctypes.CDLL("libpcap.so.0.8")
    except OSError as error:
        unavailable(f"{error}: apt-get install tcpdump")


def packed(program: Program) -> ctypes.Array[ctypes.c_char]:
    data = b"".join(_INSTRUCTION.pack(*instruction) for instruction in program.instructions)
    return ctypes.create_string_buffer(data, len(data))


def attach(sock: socket.socket, instructions: tuple[Instruction, ...]) -> None:
    """Have the kernel run a program on what comes to a socket; raises OSError if it may not run."""
    data = b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(data, len(data))
    program = struct.pack("HP", len(instructions), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender, and a receiver that does not wait."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.setblocking(False)
    with sender, receiver:
        yield sender, receiver


def test_random_programs_return_what_libpcap_returns(libpcap: ctypes.CDLL) -> None:
    libpcap.bpf_filter.restype = ctypes.c_uint32
    rng = random.Random(11)
    results = set()
    for _ in range(3000):
        program = Program((*_CLEAR, *random_program(rng, 40).instructions))
        frame = rng.randbytes(rng.choice([0, 1, 14, 40, 64, 100]))
        length = rng.choice([len(frame), len(frame) + rng.randrange(2000)])
        ours = run(program, frame, length)
        assert ours == libpcap.bpf_filter(packed(program), frame, length, len(frame)), (program, frame)
        results.add(ours)
    assert len(results) > 300, "the programs have found next to nothing"


def test_kernel_keeps_as_many_bytes_of_a_message(sockets: tuple[socket.socket, socket.socket]) -> None:
    """Not compared: shifts by X, of 32 bits and more also, and places by X, which it takes modulo 2**32."""
    sender, receiver = sockets
    rng = random.Random(12)
    kept = set()
    ran = 0
    while ran < 500:
        instructions = (*_CLEAR, *random_program(rng, 40).instructions)
        if {instruction.code for instruction in instructions} & {0x6C, 0x7C, 0x40, 0x48, 0x50}:
            continue
        ran += 1
        attach(receiver, instructions)
        frame = rng.randbytes(rng.choice([1, 14, 40, 64, 100]))
        sender.send(frame)
        expected = frame[: run(Program(instructions), frame)]
        try:
            assert receiver.recv(2000) == expected
        except BlockingIOError:
            assert expected == b""
        kept.add(len(expected))
    assert len(kept) > 10, "the programs have found next to nothing"


def test_kernel_refuses_what_we_refuse(sockets: tuple[socket.socket, socket.socket]) -> None:
    """But for places in front of the frame, of which ours knows none."""
    _, receiver = sockets
    rng = random.Random(13)
    codes = sorted(CODES)
    verdicts = {True: 0, False: 0}
    for _ in range(4000):
        instructions = [*_CLEAR, *random_program(rng, 12).instructions]
        place = rng.randrange(len(_CLEAR), len(instructions))
        code, jt, jf, k = instructions[place]
        instructions[place] = rng.choice(
            [
                Instruction(
                    rng.choice([rng.choice(codes), rng.randrange(256), rng.randrange(1 << 16)]), jt, jf, k
                ),
                Instruction(
                    code, rng.randrange(16), rng.randrange(16), rng.choice([0, 1, 15, 16, 31, 32, 40])
                ),
                Instruction(code, jt, jf, rng.choice([len(instructions) - place, _WORD >> 1])),
            ]
        )
        try:
            Program(tuple(instructions))
        except ValueError as error:
            complaint = str(error)
        else:
            complaint = ""
        if complaint.endswith("reads outside of the frame"):
            continue
        try:
            attach(receiver, tuple(instructions))
        except OSError:
            theirs = False
        else:
            theirs = True
        assert theirs == (not complaint), (instructions[len(_CLEAR) :], complaint)
        verdicts[theirs] += 1
    assert min(verdicts.values()) > 500


def random_frame(rng: random.Random) -> bytes:
    """Return a frame that some of the filters are about."""
    ports = struct.pack("!HH", rng.choice([53, 80, 40_000]), rng.choice([53, 80, 40_000]))
    tcp = ports + bytes(8) + bytes([rng.choice([0x50, 0x60]), rng.choice([2, 16, 1]), 0, 0]) + bytes(4)
    inner = rng.choice([tcp, ports + struct.pack("!HH", 8, 0)]) + rng.choice(
        [b"A", b"\1\2\3"]
    ) * rng.randrange(60)
    protocol = rng.choice([1, 6, 6, 17, 17])
    options = rng.choice([0, 0, 1, 3])
    packet: bytes = rng.choice(
        [
            struct.pack(
                "!BBHHHBBH4s4s",
                0x45 + options,
                0,
                20 + 4 * options + len(inner),
                1,
                rng.choice([0, 0x4000, 0x2001, 7]),
                64,
                protocol,
                0,
                bytes([10, 0, 0, rng.randrange(4)]),
                bytes([10, 0, rng.randrange(2), 2]),
            )
            + bytes(4 * options)
            + inner,
            b"\x60\0\0\0"
            + struct.pack("!HBB", len(inner), rng.choice([protocol, 0]), 64)
            + bytes(32)
            + inner,
        ]
    )
    types = {4: b"\x08\0", 6: b"\x86\xdd"}
    kind = rng.choice([types[packet[0] >> 4]] * 6 + [b"\x08\x06", b"\x88\xcc", b"\x88\xb5"])
    tags = [b"\x81\0" + bytes([0, rng.choice([10, 20])]) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    destination = rng.choice([b"\xff" * 6, b"\x01\x80\xc2\0\0\x0e", b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"])
    frame = destination + b"\2\0\0\0\0" + bytes([rng.randrange(1, 4)]) + b"".join(tags) + kind + packet
    return frame if rng.random() < 0.7 else frame[: rng.randrange(14, len(frame))]


@pytest.mark.parametrize("text", FILTERS)
def test_filters_select_what_tcpdump_selects(tmp_path: Path, text: str) -> None:
    """It reads our file, and so says of that too that it is one."""
    tcpdump = str(require_program("tcpdump"))
    rng = random.Random(14)
    frames = [random_frame(rng) for _ in range(400)]
    # Each begins with its number, where no filter looks: as the time.
    file = serialize_section("test") + serialize_interface("lan:1", "", 65_535)
    file += b"".join(
        serialize_packet(0, number, frame, len(frame), INBOUND) for number, frame in enumerate(frames)
    )
    assert len(read_packets(file)) == 400
    path = tmp_path / "frames.pcapng"
    path.write_bytes(file)

    def dump(*arguments: str) -> str:
        return subprocess.run([tcpdump, *arguments], check=True, capture_output=True, text=True).stdout

    shown = dump("-r", str(path), "-tt", "-n", "-q", "--nano", text)
    selected = [
        int(line.split(" ", 1)[0].replace(".", "")) for line in shown.splitlines() if line[0].isdigit()
    ]
    program = parse_ddd(dump("-y", "EN10MB", "-ddd", text))
    assert [number for number, frame in enumerate(frames) if run(program, frame)] == selected
    assert 0 < len(selected) < 400


def test_filter_that_loops_is_refused() -> None:
    """It jumps backwards, from one header of IPv6 to the next."""
    command = [str(require_program("tcpdump")), "-y", "EN10MB", "-ddd", "ip6 protochain 6"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    with pytest.raises(ValueError, match=r"instruction \d+: jumps backwards"):
        parse_ddd(text)
