"""The scenes that are played to both ``uml_switch`` programs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from integration.peers.fake_guest import BROADCAST, attach_request, frame, mac
from integration.peers.uml_switch_scene import Act, Prepare, Scenario, Scene
from support.deadline import wait_until_async

#: Frames that wait in a socket which nobody reads: net.unix.max_dgram_qlen and one.
SOCKET_QUEUE = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1
GROUP_SOURCE = b"\x03\0\0\0\0\1"


def _stale(*names: str) -> Prepare:
    """Leave the sockets of a switch that has died: control first, then data."""

    def prepare(directory: Path) -> Callable[[], None]:
        for name, kind in zip(names, (socket.SOCK_STREAM, socket.SOCK_DGRAM), strict=False):
            with socket.socket(socket.AF_UNIX, kind) as dead:
                dead.bind(str(directory / name))
        return lambda: None

    return prepare


def _live(name: str, kind: socket.SocketKind) -> Prepare:
    """Put the socket of another server there."""

    def prepare(directory: Path) -> Callable[[], None]:
        server = socket.socket(socket.AF_UNIX, kind)
        server.bind(str(directory / name))
        if kind == socket.SOCK_STREAM:
            server.listen()
        return server.close

    return prepare


def _file(name: str) -> Prepare:
    def prepare(directory: Path) -> Callable[[], None]:
        (directory / name).write_text("precious\n")
        return lambda: None

    return prepare


def _folder(name: str) -> Prepare:
    def prepare(directory: Path) -> Callable[[], None]:
        (directory / name).mkdir()
        return lambda: None

    return prepare


def _attach_and_leave(version: int) -> Act:
    async def act(scene: Scene) -> None:
        guest = await scene.attach(version)
        await scene.teach(guest, 1)
        guest.close()
        await scene.switch.wait_line("Disconnect")

    return act


async def _learn_and_move(scene: Scene) -> None:
    first, second = await scene.attach(3), await scene.attach(1)
    await scene.teach(first, 1)
    second.receive()
    second.send(frame(mac(1), mac(2)))
    scene.notes.append(f"first gets {len(first.receive())} bytes by unicast")
    await scene.switch.wait_line("02:00:00:00:00:02 New port")
    second.send(frame(BROADCAST, mac(1)))
    first.receive()
    await scene.switch.wait_line("old port")


async def _group_source(scene: Scene) -> None:
    first, second = await scene.attach(), await scene.attach()
    first.send(frame(BROADCAST, GROUP_SOURCE))
    scene.notes.append(f"second gets {len(second.receive())} bytes")


async def _unknown_destination(scene: Scene) -> None:
    first, second = await scene.attach(), await scene.attach()
    await scene.teach(first, 1)
    for number in (7, 7, 8):
        first.send(frame(mac(number), mac(1)))
        second.receive()
    await scene.switch.wait_line("unknown Addr")
    await scene.teach(second, 2)
    second.send(frame(mac(7), mac(2)))
    await scene.switch.wait_line("unknown Addr: 02:00:00:00:00:02")


async def _reuse_port(scene: Scene) -> None:
    guests = [await scene.attach() for _ in range(3)]
    guests[0].close()
    await scene.switch.wait_line("Disconnect")
    guests[1].close()
    await scene.switch.wait_line("Disconnect", 2)
    for number in (1, 2):
        await scene.teach(await scene.attach(), number)


async def _relearn_after_leaving(scene: Scene) -> None:
    first, second = await scene.attach(), await scene.attach()
    await scene.teach(first, 1)
    second.receive()
    first.close()
    await scene.switch.wait_line("Disconnect")
    second.send(frame(BROADCAST, mac(1)))
    await scene.switch.wait_line("New port 6")


async def _flood_in_hub(scene: Scene) -> None:
    guests = [await scene.attach() for _ in range(3)]
    for number, guest in enumerate(guests, 1):
        guest.send(frame(BROADCAST, mac(number)))
        for other in guests:
            if other is not guest:
                other.receive()
    guests[0].send(frame(mac(2), mac(1)))
    scene.notes += [f"{who} gets {len(guest.receive())} bytes" for who, guest in enumerate(guests[1:], 2)]


async def _own_address(scene: Scene) -> None:
    first, second = await scene.attach(), await scene.attach()
    await scene.teach(first, 1)
    second.receive()
    first.send(frame(mac(1), mac(1)))
    first.send(frame(BROADCAST, mac(1)))
    second.receive()
    scene.notes.append(f"sender gets {len(first.receive_waiting())} of its own frames back")


async def _odd_lengths(scene: Scene) -> None:
    first, second = await scene.attach(), await scene.attach()
    await scene.teach(first, 1)
    second.receive()
    long = frame(BROADCAST, mac(1), size=1600)
    for data in (b"abc", b"", long[:13], long[:1514], long, long[:60]):
        first.send(data)
    lengths: list[int] = []
    while not lengths or lengths[-1] != 60:
        lengths.append(len(second.receive()))
    scene.notes.append(f"of 3, 0, 13, 1514, 1600 and 60 bytes came {lengths}")


async def _stranger(scene: Scene) -> None:
    guest = await scene.attach()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.bind(b"\0stranger".ljust(108, struct.pack("=I", os.getpid())[:1] or b"x"))
        assert guest.switch_name is not None
        try:
            stranger.sendto(frame(BROADCAST, mac(9)), guest.switch_name)
        except PermissionError:
            scene.notes.append("a stranger's frame is refused")
        else:
            scene.notes.append(f"a stranger's frame of {len(guest.receive())} bytes is forwarded")


async def _slow_reader(scene: Scene) -> None:
    first, second, third = [await scene.attach() for _ in range(3)]
    await scene.teach(first, 1)
    second.receive()
    third.receive()
    for number in range(20):
        first.send(frame(BROADCAST, mac(1), bytes((number,))))
        third.receive()
    got = [second.receive() for _ in range(SOCKET_QUEUE)]
    # What waited in the switch, if it lets frames wait, comes before the frame that is sent now.
    first.send(frame(BROADCAST, mac(1), b"\xff"))
    while got[-1][14] != 0xFF:
        got.append(second.receive())
    scene.notes.append(f"the slow guest reads {'all' if len(got) == 21 else 'only some'} of 20 frames")


async def _data_socket_gone(scene: Scene) -> None:
    first, second, third = [await scene.attach() for _ in range(3)]
    second.datagrams.close()
    # The original serves the third first; when it has the second frame, the second had its turn once.
    for _ in range(2):
        first.send(frame(BROADCAST, mac(1)))
        size = len(third.receive())
    scene.notes.append(f"third gets {size} bytes")
    await scene.switch.wait_line("New port")


def _request(build: Callable[[bytes], bytes], line: str, *, usable: bool = True) -> Act:
    """Send the request that ``build`` makes for a name; a good guest's frames come after it.

    The original serves control connections, but no frames any more, after one of them (not ``usable``).
    """

    async def act(scene: Scene) -> None:
        guest = scene.new_guest()
        guest.stream.sendall(build(guest.name))
        await scene.switch.wait_line(line)
        good = await scene.attach()
        if usable:
            await scene.teach(good, 1)
        scene.note_stream(guest)

    return act


async def _leave_without_request(scene: Scene) -> None:
    scene.new_guest().close()
    await scene.switch.wait_line("EOF from new port")
    await scene.teach(await scene.attach(), 1)


async def _split_request(scene: Scene) -> None:
    guest = scene.new_guest()
    request = attach_request(3, guest.name)
    guest.stream.sendall(request[:60])
    await scene.attach()
    with contextlib.suppress(BrokenPipeError):
        guest.stream.sendall(request[60:])
    reply = guest.read_reply()
    scene.notes.append(f"reply of {len(reply)} bytes")
    await scene.attach()
    scene.note_stream(guest)


async def _talk_after_request(scene: Scene) -> None:
    guest = await scene.attach()
    guest.stream.sendall(b"more")
    await scene.switch.wait_line("Bad request")
    guest.wait_closed()


async def _v0_guest(scene: Scene) -> None:
    first, second = await scene.attach(0), await scene.attach(3)
    await scene.teach(first, 1)
    scene.notes.append(f"v3 guest gets {len(second.receive())} bytes from the v0 guest")
    second.send(frame(mac(1), mac(2)))
    scene.notes.append(f"v0 guest gets {len(first.receive())} bytes from the v3 guest")
    await scene.switch.wait_line("02:00:00:00:00:02 New port")


async def _v0_without_data_socket(scene: Scene) -> None:
    guest = scene.new_guest()
    guest.stream.sendall(attach_request(0, guest.name))
    await scene.teach(await scene.attach(), 1)
    scene.note_stream(guest)


def _signal(number: signal.Signals) -> Act:
    async def act(scene: Scene) -> None:
        await scene.attach()
        scene.switch.signal(number)
        await scene.switch.wait()

    return act


async def _end_of_input(scene: Scene) -> None:
    scene.type_keys(b"some words\n")
    await scene.teach(await scene.attach(), 1)
    scene.type_keys(b"\x04")
    await scene.switch.wait()


async def _hang_up(scene: Scene) -> None:
    await scene.attach()
    scene.hang_up()
    await scene.switch.wait()


async def _ask_for_every_frame(scene: Scene) -> None:
    """Send Netkit's request for a dump; a good guest's frame comes after it."""
    dump = scene.new_guest()
    dump.stream.sendall(attach_request(3, dump.name, 1))
    await wait_until_async(lambda: len(scene.switch.stdout) > 1, 10, "a word about the dump")
    await scene.teach(await scene.attach(), 1)
    scene.note_stream(dump)
    if scene.notes[-1].endswith("answered"):
        scene.notes.append(f"the dump got {len(dump.receive())} bytes")


def _asks(version: int, request_type: int = 0) -> Callable[[bytes], bytes]:
    return lambda name: attach_request(version, name, request_type)


def _garbage(name: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\n".ljust(124)


def _too_long(name: bytes) -> bytes:
    return attach_request(3, name) + b"x" * 176


_CTL = ("-unix", "ctl")

SCENARIOS: dict[str, Scenario] = {
    "start_plain": Scenario(_CTL),
    "start_hub": Scenario(("-hub", *_CTL)),
    "start_hub_last": Scenario((*_CTL, "-hub")),
    "start_hub_twice": Scenario(("-hub", "-hub", *_CTL)),
    "start_last_unix_counts": Scenario((*_CTL, "-unix", "other")),
    "start_compat": Scenario(("-compat-v0", *_CTL, "data")),
    "start_compat_last_unix_counts": Scenario(("-compat-v0", "-unix", "a", "b", *_CTL, "data")),
    "start_compat_later": Scenario((*_CTL, "-compat-v0", "-unix", "other", "data")),
    "start_compat_takes_any_word": Scenario(("-compat-v0", *_CTL, "-hub")),
    "start_older_syntax": Scenario((*_CTL, "data")),
    "start_older_syntax_hub": Scenario((*_CTL, "data", "-hub")),
    "usage_unknown_option": Scenario(("-x",)),
    "usage_help": Scenario(("--help",)),
    "usage_word": Scenario(("word",)),
    "usage_empty_word": Scenario(("",)),
    "usage_unix_without_path": Scenario(("-unix",)),
    "usage_compat_without_data": Scenario(("-compat-v0", *_CTL)),
    "usage_tap_without_device": Scenario((*_CTL, "-tap")),
    "usage_after_hub": Scenario(("-hub", "-x")),
    "path_in_no_directory": Scenario(("-unix", "none/ctl")),
    "path_is_directory": Scenario(_CTL, prepare=_folder("ctl")),
    "path_is_file": Scenario(_CTL, prepare=_file("ctl")),
    "path_is_empty": Scenario(("-unix", "")),
    "path_too_long": Scenario(("-unix", "x" * 120)),
    "data_path_in_no_directory": Scenario(("-compat-v0", *_CTL, "none/data")),
    "data_path_is_file": Scenario(("-compat-v0", *_CTL, "data"), prepare=_file("data")),
    "stale_control": Scenario(_CTL, prepare=_stale("ctl")),
    "stale_control_and_data": Scenario(("-compat-v0", *_CTL, "data"), prepare=_stale("ctl", "data")),
    "live_control": Scenario(_CTL, prepare=_live("ctl", socket.SOCK_STREAM)),
    "live_data": Scenario(("-compat-v0", *_CTL, "data"), prepare=_live("data", socket.SOCK_DGRAM)),
    "tap": Scenario((*_CTL, "-tap", "umltest0"), needs_root=True),
    "attach_v3": Scenario(_CTL, _attach_and_leave(3)),
    "attach_v1": Scenario(_CTL, _attach_and_leave(1)),
    "attach_v0": Scenario(("-compat-v0", *_CTL, "data"), _v0_guest),
    "attach_v0_without_data_socket": Scenario(_CTL, _v0_without_data_socket),
    "learn_and_move": Scenario(_CTL, _learn_and_move),
    "learn_group_source": Scenario(_CTL, _group_source),
    "learn_again_after_leaving": Scenario(_CTL, _relearn_after_leaving),
    "unknown_destination": Scenario(_CTL, _unknown_destination),
    "port_reused": Scenario(_CTL, _reuse_port),
    "hub_floods": Scenario(("-hub", *_CTL), _flood_in_hub),
    "frame_to_own_port": Scenario(_CTL, _own_address),
    "frame_lengths": Scenario(_CTL, _odd_lengths),
    "frame_from_stranger": Scenario(_CTL, _stranger),
    "guest_reads_slowly": Scenario(_CTL, _slow_reader),
    "guest_data_socket_gone": Scenario(_CTL, _data_socket_gone),
    "request_version_2": Scenario(_CTL, _request(_asks(2), "ersion 2", usable=False)),
    "request_version_4": Scenario(_CTL, _request(_asks(4), "version 4")),
    "request_version_99": Scenario(_CTL, _request(_asks(99), "version 99")),
    "request_type_7": Scenario(_CTL, _request(_asks(3, 7), "type : 7")),
    "request_dump": Scenario(_CTL, _ask_for_every_frame),
    "request_v1_type_1": Scenario(_CTL, _request(_asks(1, 1), "type : 1")),
    "request_v0_type_7": Scenario(("-compat-v0", *_CTL, "data"), _request(_asks(0, 7), "type : 7")),
    "request_garbage": Scenario(_CTL, _request(_garbage, "type : 542393671")),
    "request_too_long": Scenario(_CTL, _request(_too_long, "Bad request")),
    "request_split": Scenario(_CTL, _split_request),
    "request_never_sent": Scenario(_CTL, _leave_without_request),
    "request_followed_by_more": Scenario(_CTL, _talk_after_request),
    "signal_int": Scenario(_CTL, _signal(signal.SIGINT)),
    "signal_term": Scenario(_CTL, _signal(signal.SIGTERM)),
    "signal_hup": Scenario(_CTL, _signal(signal.SIGHUP)),
    "signal_int_compat": Scenario(("-compat-v0", *_CTL, "data"), _signal(signal.SIGINT)),
    "terminal_end_of_input": Scenario(_CTL, _end_of_input, terminal=True),
    "terminal_hangs_up": Scenario(_CTL, _hang_up, terminal=True),
}
