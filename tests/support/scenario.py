"""Random switch scenarios: steps that a model of the switch and any engine can both run.

Time stands still but for the steps that advance it, and each such step sends a frame at once, so that
an engine looks at its timer then.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from support.guest_end import BROADCAST, HEADERS, mac
from support.scenario_vlan import RESERVED, random_mirrors, random_ports, random_tags, random_type
from umlab.switch.core import PUNT_SIZE
from umlab.switch.model import MIN_FRAME, SECOND_NS, SwitchConfig

#: How a guest is attached; a monitor never sends.
WAYS = ("connected", "unconnected", "seqpacket", "device", "shared", "stream", "headed", "monitor")
#: The switch sees the end of those by itself; they have no empty frame.
WITH_END = ("seqpacket", "device", "stream")
#: A socket of those takes a number of unread frames that is known, whatever their size.
LIMITED = ("unconnected", "shared")
_GROUPS = [BROADCAST, bytes.fromhex("0180c2000000"), bytes.fromhex("333300000001")]
#: Bytes of kernel memory that the frames of one step may take: all fit a socket with its default buffer.
_SOCKET_MEMORY = 200_000


@dataclass(frozen=True)
class Attach:
    """A guest attaches, one of ``WAYS``, under a number or the lowest free one."""

    way: str
    port_no: int | None = None


@dataclass(frozen=True)
class Detach:
    """The control side drops a port."""

    port_no: int


@dataclass(frozen=True)
class Die:
    """A guest's end is closed; the port stays."""

    port_no: int


@dataclass(frozen=True)
class Send:
    """Time advances, then a guest sends frames without a pause."""

    port_no: int
    frames: tuple[bytes, ...]
    span_ns: int = 0


@dataclass(frozen=True)
class Configure:
    """The control side tells the switch something else, and a frame is sent at once."""

    config: SwitchConfig
    send: Send


@dataclass(frozen=True)
class Inject:
    """The control side sends a frame of its own out of a port."""

    port_no: int
    frame: bytes


@dataclass(frozen=True)
class Flush:
    """The control side forgets the addresses of a port, or all."""

    port_no: int | None


@dataclass(frozen=True)
class Handover:
    """What is known is taken away and given back, as from one engine to the next."""


@dataclass(frozen=True)
class Stop:
    """A guest reads no more."""

    port_no: int


@dataclass(frozen=True)
class Resume:
    """A guest that read no more reads all that waits."""

    port_no: int


@dataclass(frozen=True)
class Stranger:
    """Somebody who never attached sends to the shared socket."""

    frame: bytes


@dataclass(frozen=True)
class Garble:
    """A guest sends a message without the header that belongs in front of a frame."""

    port_no: int
    message: bytes


@dataclass(frozen=True)
class Look:
    """The control side takes the events and the punts, and reads the FDB."""


Step = (
    Attach
    | Detach
    | Die
    | Send
    | Configure
    | Inject
    | Flush
    | Handover
    | Stop
    | Resume
    | Stranger
    | Garble
    | Look
)


@dataclass(frozen=True)
class Profile:
    """What the scenarios of a family are like.

    Attributes:
        config: What the switch is told to be at first.
        ways: How its guests attach, those of ``WAYS``.
        least_ports, most_ports: Guests at once.
        most_frames: Frames that a guest sends in one step, at most.
        stations: Addresses that are in use beside the group addresses.
        max_frames, capacities, depths: What the switch may be told later.
        stops: Whether guests stop reading.
        sizes: Frame lengths that are likelier than others.
        vlans: Whether there are VLANs, tags, mirror sessions and policies for reserved addresses.
    """

    config: SwitchConfig
    ways: tuple[str, ...] = WAYS
    least_ports: int = 2
    most_ports: int = 6
    most_frames: int = 1
    stations: int = 6
    max_frames: tuple[int, ...] = (70, 1518)
    capacities: tuple[int, ...] = (0, 2, 3, 8, 1000)
    depths: tuple[int, ...] = (1, 2, 8, 512)
    stops: bool = False
    sizes: tuple[int, ...] = (60, 64, 1514)
    vlans: bool = False


@dataclass
class _Maker:
    """Makes one scenario, knowing what is attached so far."""

    rng: random.Random
    profile: Profile
    config: SwitchConfig
    ways: dict[int, str] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)

    def step(self) -> Step:
        """Return a next step that is possible now."""
        living = [port_no for port_no in self.ways if port_no not in self.dead]
        senders = [port_no for port_no in living if self.ways[port_no] != "monitor"]
        choice = self.rng.random()
        few = len(senders) < 2 or len(self.ways) < self.profile.least_ports
        if few or (choice < 0.06 and len(self.ways) < self.profile.most_ports):
            return self._attach()
        if choice < 0.08:
            return Detach(self._forget(self.rng.choice(list(self.ways))))
        if choice < 0.10:
            self.dead.add(port_no := self.rng.choice(living))
            self.stopped.discard(port_no)
            return Die(port_no)
        if choice < 0.15:
            self._reconfigure()
            # So short that it is never too long.
            return Configure(self.config, Send(self.rng.choice(senders), (self._frame(14),)))
        if choice < 0.18 and self.profile.vlans:
            size = self.rng.choice([MIN_FRAME, 60, PUNT_SIZE])
            return Inject(self.rng.choice(list(self.ways)), self._frame(size))
        if choice < 0.20:
            return Flush(self.rng.choice([None, *self.ways]))
        if choice < 0.22:
            return Handover()
        if choice < 0.24:
            return Look()
        if choice < 0.27 and "shared" in self.ways.values():
            return Stranger(self._frame(60))
        if choice < 0.30 and (headed := [no for no in senders if self.ways[no] == "headed"]):
            return Garble(self.rng.choice(headed), self._garbled())
        if choice < 0.40 and self.profile.stops:
            return self._stop_or_resume(living)
        return self._send(self.rng.choice(senders))

    def _attach(self) -> Attach:
        lowest = self.config.first_port_no
        while lowest in self.ways:
            lowest += 1
        given = None
        if self.rng.random() < 0.3:
            given = self.rng.choice([lowest, lowest + 1, lowest + 70, lowest + 400])
            given = None if given in self.ways else given
        way = self.rng.choice(self.profile.ways)
        self.ways[given or lowest] = way
        return Attach(way, given)

    def _forget(self, port_no: int) -> int:
        del self.ways[port_no]
        self.dead.discard(port_no)
        self.stopped.discard(port_no)
        return port_no

    def _reconfigure(self) -> None:
        rng, profile = self.rng, self.profile
        self.config = replace(
            self.config,
            hub=rng.random() < 0.3,
            ageing_time_ns=rng.choice([1, SECOND_NS, 5 * SECOND_NS, 300 * SECOND_NS]),
            fdb_capacity=rng.choice(profile.capacities),
            max_frame=rng.choice(profile.max_frames),
            egress_queue_depth=rng.choice(profile.depths),
        )
        if profile.vlans:
            lowest = self.config.first_port_no
            numbers = sorted({*self.ways, lowest, lowest + 1, lowest + 2})
            self.config = replace(
                self.config, ports=random_ports(rng, numbers), mirrors=random_mirrors(rng, numbers)
            )

    def _stop_or_resume(self, living: list[int]) -> Step:
        if self.stopped and self.rng.random() < 0.4:
            self.stopped.remove(port_no := self.rng.choice(sorted(self.stopped)))
            return Resume(port_no)
        able = [no for no in living if self.ways[no] in LIMITED and no not in self.stopped]
        if not able:
            return Look()
        self.stopped.add(port_no := self.rng.choice(able))
        return Stop(port_no)

    def _send(self, port_no: int) -> Send:
        least = 1 if self.ways[port_no] in WITH_END else 0
        frames: list[bytes] = []
        memory = 0
        for _ in range(self.rng.randint(1, self.profile.most_frames)):
            frame = self._frame(max(least, self._size()))
            memory += 2 * (len(frame) + 320) + 256
            if frames and memory > _SOCKET_MEMORY:
                break
            frames.append(frame)
        # Frames that are dropped for their size do not make an engine look at ages.
        sized_well = any(14 <= len(frame) <= self.config.max_frame for frame in frames)
        spans = [0, 0, 0, SECOND_NS, self.config.ageing_time_ns, self.config.ageing_time_ns + 1]
        return Send(port_no, tuple(frames), self.rng.choice(spans) if sized_well else 0)

    def _size(self) -> int:
        rng, longest = self.rng, self.config.max_frame
        choice = rng.random()
        if choice < 0.5:
            return min(rng.choice(self.profile.sizes), longest)
        if choice < 0.65:
            return rng.choice([0, 1, 13, 14])
        if choice < 0.8:
            # The boundary between the small and the large buffers of the native engine.
            return min(rng.randint(1900, 2100), longest + 1)
        return rng.choice([longest - 1, longest, longest + 1])

    def _garbled(self) -> bytes:
        header = HEADERS.rx_header
        whole = header + bytes(HEADERS.rx_skip)
        place = self.rng.randrange(len(header))
        other = header[:place] + bytes([header[place] ^ 1 << self.rng.randrange(8)]) + header[place + 1 :]
        cut = self.rng.choice([0, len(whole) - 1, self.rng.randrange(len(whole))])
        return self.rng.choice([whole[:cut], other + self._frame(60)])

    def _frame(self, size: int) -> bytes:
        head = self._address() + self._address()
        head += random_tags(self.rng) + random_type(self.rng) if self.profile.vlans else b"\x88\xb5"
        return (head + self.rng.randbytes(8)).ljust(size, b"\xa5")[:size]

    def _address(self) -> bytes:
        groups = [*_GROUPS, *RESERVED] if self.profile.vlans else _GROUPS
        number = self.rng.randrange(self.profile.stations + len(groups))
        if number < self.profile.stations:
            return mac(number)
        return groups[number - self.profile.stations]


def make_scenario(rng: random.Random, profile: Profile, length: int) -> list[Step]:
    """Return ``length`` steps, and those by which all read in the end; the same for equal generators."""
    maker = _Maker(rng, profile, profile.config)
    steps = [maker.step() for _ in range(length)]
    return [*steps, *(Resume(port_no) for port_no in sorted(maker.stopped))]
