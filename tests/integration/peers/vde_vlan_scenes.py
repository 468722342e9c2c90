"""The scenes with VLANs that are played to both ``vde_switch`` programs: commands, and frames."""

from __future__ import annotations

from integration.peers.fake_guest import BROADCAST, mac
from integration.peers.vde_switch_scene import Scenario, Scene

_CONSOLE = ("-s", "s", "-M", "m", "-n", "8")
_TYPE = b"\x88\xb5"
#: Nobody learns from a group address.
_NOBODY = b"\x03\0\0\0\0\0"
_MARKER = b"marker"
_S_TAG = b"\x88\xa8"
_C_TAG = b"\x81\x00"


def _frame(
    destination: bytes, source: bytes, vid: int | None = None, tpid: bytes = _C_TAG, size: int = 20
) -> bytes:
    """Return a frame with a tag, its priority bits and VID as one number, or without."""
    tag = b"" if vid is None else tpid + vid.to_bytes(2, "big")
    return (destination + source + tag + _TYPE + b"text").ljust(size, b"\0")


class _Lan:
    """Clients whose frames are noted, one at each port; the last one is of every VLAN, and listens.

    Args:
        scene: The scene.
        commands: What sets the VLANs up, once all clients are there.
        count: How many there are.
    """

    def __init__(self, scene: Scene, *commands: str, count: int = 5) -> None:
        self._scene = scene
        self._clients = [scene.attach(number) for number in range(1, count + 1)]
        made = [command.split()[1] for command in commands if command.startswith("vlan/create")]
        scene.say(*commands, *(f"vlan/addport {vlan} {count}" for vlan in made))

    def send(self, number: int, frame: bytes, marker_vid: int | None = None) -> None:
        """Send a frame, and note who gets what.

        Args:
            number: The client who sends it.
            frame: The frame.
            marker_vid: The tag of what it can send to the last one, ``None`` for no tag.
        """
        sender, last = self._clients[number - 1], self._clients[-1]
        sender.send(frame)
        sender.send(_frame(BROADCAST, _NOBODY, marker_vid) + _MARKER)
        seen = [last.receive()]
        while not seen[-1].endswith(_MARKER):
            seen.append(last.receive())
        # Whoever answers has done with both frames.
        self._scene.console.say("port/print")
        self._scene.notes.append(f"client {number} sends {frame[:24].hex()} of {len(frame)}")
        for each, client in enumerate(self._clients, 1):
            for received in (*(seen if client is last else ()), *client.receive_waiting()):
                if not received.endswith(_MARKER):
                    shown = "it" if received == frame else received[:24].hex()
                    self._scene.notes.append(f"  client {each} gets {shown} of {len(received)}")


async def _commands(scene: Scene) -> None:
    scene.attach()
    scene.attach()
    scene.say("vlan/create 7", "vlan/create 7", "vlan/create 0", "vlan/create 4093", "vlan/create 4094")
    scene.say("vlan/create 4095", "vlan/create 5000", "vlan/create -1", "vlan/create", "vlan/create x")
    scene.say("vlan/create 8 9", "vlan/create 99999999999", "vlan/create 7z", "vlan/create +9", "vlan/print")
    scene.say("vlan/addport 7 1", "vlan/addport 7 1", "vlan/addport 7 2", "vlan/addport 7 3")
    scene.say("vlan/addport 7 8", "vlan/addport 7 99", "vlan/addport 12 1", "vlan/addport 12 99")
    scene.say("vlan/addport 4093 1", "vlan/addport 4094 1", "vlan/addport 4095 1", "vlan/addport 5000 1")
    scene.say("vlan/addport 0 1", "vlan/addport 7", "vlan/addport", "vlan/addport x y", "vlan/addport 7 x")
    scene.say("vlan/addport 7x 1", "vlan/addport 7,1", "vlan/addport 7 1x", "vlan/addport 7\t1")
    scene.say("vlan/addport 7 -1", "vlan/addport -7 1", "vlan/print", "vlan/print 7", "vlan/allprint")
    scene.say("vlan/print 12", "vlan/print 4093", "vlan/print 4094", "vlan/print 4095", "vlan/print -1")
    scene.say("vlan/allprint 7", "vlan/allprint 12", "vlan/allprint 4094")


async def _untagged(scene: Scene) -> None:
    scene.attach()
    scene.attach()
    scene.say("vlan/create 7", "vlan/create 8", "vlan/addport 7 1", "vlan/addport 7 2", "port/setvlan 1 7")
    scene.say("port/print 1", "vlan/print", "vlan/addport 7 1", "vlan/delport 7 1", "vlan/print 7")
    scene.say("port/setvlan 1 8", "vlan/print", "port/setvlan 1 12", "port/setvlan 1 4094", "port/print")
    scene.say("port/setvlan 1 4095", "port/print", "vlan/print", "vlan/allprint", "port/setvlan 1 4096")
    scene.say("port/setvlan 1 -1", "port/setvlan 1", "port/setvlan", "port/setvlan x y", "port/setvlan 1 x")
    scene.say("port/setvlan 3 7", "port/setvlan 8 7", "port/setvlan 99 7", "port/setvlan 0 7")
    scene.say("port/setvlan 9999999999 7", "port/setvlan 2 7 9", "vlan/print", "port/setvlan 1 0")
    scene.say("port/setvlan 2 0", "vlan/print", "port/print")


async def _removed(scene: Scene) -> None:
    scene.attach()
    scene.attach()
    scene.say("vlan/create 7", "vlan/create 8", "vlan/addport 7 2", "port/setvlan 1 8", "vlan/remove 7")
    scene.say("vlan/remove 8", "vlan/delport 7 2", "vlan/delport 7 2", "vlan/delport 7 8", "vlan/delport 7 3")
    scene.say("vlan/delport 9 1", "vlan/delport 7", "vlan/delport 7 x", "vlan/delport 4094 1")
    scene.say("vlan/delport 4095 1", "vlan/delport 0 1", "vlan/delport 0 2", "vlan/remove 7", "vlan/remove 7")
    scene.say("vlan/remove 0", "vlan/remove", "vlan/remove x", "vlan/remove 4094", "vlan/remove 4095")
    scene.say("vlan/remove -1", "port/setvlan 1 0", "vlan/remove 8", "vlan/print")


async def _unused_ports(scene: Scene) -> None:
    first = scene.attach()
    scene.attach()
    scene.say("vlan/create 7", "vlan/create 4093", "port/create 5", "vlan/addport 7 5", "port/setvlan 1 7")
    scene.say("vlan/addport 4093 1", "vlan/print", "vlan/allprint", "port/allprint 5")
    await scene.leave(first, 1)
    scene.say("vlan/print", "vlan/allprint", "vlan/allprint 7", "port/allprint 1", "vlan/remove 7")
    # Who comes back finds it as it was.
    again = scene.attach(1)
    scene.say("vlan/print", "port/print 1")
    await scene.leave(again, 1)
    # A port that is made anew is not as it was.
    scene.say("port/remove 1", "vlan/allprint", "port/remove 5", "vlan/allprint", "port/create 5")
    scene.say("vlan/allprint", "vlan/remove 7", "vlan/remove 4093")
    scene.attach(1)
    scene.say("vlan/print", "port/print 1")


async def _addresses(scene: Scene) -> None:
    lan = _Lan(scene, "vlan/create 7", "vlan/addport 7 1", count=2)
    lan.send(1, _frame(BROADCAST, mac(1), 7), 7)
    scene.say("hash/print", "hash/find 2:0:0:0:0:1", "hash/find 2:0:0:0:0:1 0", "hash/find 2:0:0:0:0:1 8")
    scene.say("hash/find 2:0:0:0:0:1 5000", "hash/find 2:0:0:0:0:1 x", "vlan/delport 7 1", "hash/print")


async def _kept_addresses(scene: Scene) -> None:
    lan = _Lan(scene, count=2)
    lan.send(1, _frame(BROADCAST, mac(1)))
    scene.say("hash/print", "vlan/create 7", "hash/print", "vlan/addport 7 1", "hash/print")
    scene.say("port/setvlan 1 7", "hash/print", "port/setvlan 1 0", "hash/print")


async def _access_ports(scene: Scene) -> None:
    """Two VLANs that do not hear each other, and VLAN 0 that hears neither."""
    lan = _Lan(
        scene,
        *("vlan/create 7", "vlan/create 8", "port/setvlan 1 7", "port/setvlan 2 7", "port/setvlan 3 8"),
    )
    lan.send(1, _frame(BROADCAST, mac(1)))
    lan.send(2, _frame(mac(1), mac(2)))
    lan.send(3, _frame(BROADCAST, mac(3)))
    # The same address in another VLAN is another station.
    lan.send(3, _frame(mac(1), mac(2)))
    lan.send(4, _frame(mac(1), mac(4)))
    # Tags are for ports that have the VLAN with them.
    for vid in (8, 9):
        lan.send(1, _frame(BROADCAST, mac(1), vid))
    scene.say("vlan/print")


async def _trunks(scene: Scene) -> None:
    """Tags come, go and stay, with their priorities and what is behind them."""
    lan = _Lan(
        scene,
        *("vlan/create 7", "vlan/create 8", "port/setvlan 1 7", "port/setvlan 2 4095"),
        *("vlan/addport 7 2", "vlan/addport 8 2", "port/setvlan 3 8", "vlan/addport 7 3", "vlan/addport 8 4"),
    )
    lan.send(1, _frame(BROADCAST, mac(1)))
    for tci in (7, 8, 0xE007, 0x1008, 9, 4093):
        lan.send(2, _frame(BROADCAST, mac(2), tci, size=24), 7)
    lan.send(2, _frame(mac(1), mac(2), 7, size=30), 7)
    lan.send(1, _frame(mac(2), mac(1), size=30))
    lan.send(3, _frame(mac(2), mac(3), 7, size=30))
    lan.send(2, _frame(mac(9), mac(2), 7, size=30), 7)
    # Its own VLAN may come with a tag, too.
    lan.send(3, _frame(BROADCAST, mac(3), 8), 7)
    # Without a tag it is of no VLAN.
    lan.send(2, _frame(BROADCAST, mac(2)), 7)
    # Two tags: the outer one counts.  An S-tag is no tag.
    double = _frame(BROADCAST, mac(2), 7)
    lan.send(2, double[:16] + _C_TAG + b"\0\x08" + double[16:], 7)
    lan.send(3, _frame(BROADCAST, mac(3), 7, _S_TAG))
    # As long as frames may be.
    lan.send(1, _frame(BROADCAST, mac(1), size=1514))
    lan.send(2, _frame(BROADCAST, mac(2), 7, size=1518), 7)
    scene.say("vlan/print")


async def _vlan_0(scene: Scene) -> None:
    """What every port begins in, once there are others."""
    lan = _Lan(scene, "vlan/create 7", "port/setvlan 2 7")
    lan.send(1, _frame(BROADCAST, mac(1)))
    lan.send(3, _frame(mac(1), mac(3)))
    lan.send(2, _frame(BROADCAST, mac(2)))
    lan.send(1, _frame(BROADCAST, mac(1), 7))
    scene.say("vlan/print")


async def _hub(scene: Scene) -> None:
    """A hub forwards everything to everybody, whatever its VLAN."""
    lan = _Lan(scene, "vlan/create 7", "port/setvlan 1 7", "port/sethub 1", "port/showinfo", count=3)
    for vid in (None, 7, 9, 0, 4095):
        lan.send(1, _frame(BROADCAST, mac(1), vid))
    scene.say("port/sethub 0", "vlan/print")
    lan.send(1, _frame(BROADCAST, mac(1)))


async def _vlan_0_is_removed(scene: Scene) -> None:
    scene.say("vlan/remove 0", "vlan/print")


async def _vlan_0_with_tags(scene: Scene) -> None:
    lan = _Lan(scene, "vlan/create 7", "port/setvlan 1 7", "vlan/addport 0 1", count=3)
    lan.send(2, _frame(BROADCAST, mac(2)))


async def _own_vlan_with_a_tag(scene: Scene) -> None:
    lan = _Lan(scene, "vlan/create 7", "port/setvlan 1 7", count=2)
    lan.send(1, _frame(BROADCAST, mac(1), 7))


async def _priority_tag(scene: Scene) -> None:
    lan = _Lan(scene, "vlan/create 7", "port/setvlan 1 7", count=2)
    lan.send(1, _frame(BROADCAST, mac(1), 0xA000))


async def _number_of_0(scene: Scene) -> None:
    lan = _Lan(scene, "vlan/create 7", "vlan/addport 7 1", count=2)
    lan.send(1, _frame(BROADCAST, mac(1), 4094))


async def _tags_without_vlans(scene: Scene) -> None:
    lan = _Lan(scene, count=2)
    lan.send(1, _frame(BROADCAST, mac(1), 7))


async def _octal(scene: Scene) -> None:
    scene.attach()
    scene.say("vlan/create 8", "vlan/create 10", "vlan/addport 010 1", "vlan/addport 0x8 1", "vlan/print")


VLAN_SCENARIOS: dict[str, Scenario] = {
    "vlan_commands": Scenario(_CONSOLE, _commands),
    "vlan_untagged": Scenario(_CONSOLE, _untagged),
    "vlan_removed": Scenario(_CONSOLE, _removed),
    "vlan_unused_ports": Scenario(_CONSOLE, _unused_ports),
    "vlan_addresses": Scenario(_CONSOLE, _addresses),
    "vlan_addresses_are_kept": Scenario(_CONSOLE, _kept_addresses),
    "vlan_access_ports": Scenario(_CONSOLE, _access_ports),
    "vlan_trunks": Scenario(_CONSOLE, _trunks),
    "vlan_0": Scenario(_CONSOLE, _vlan_0),
    "vlan_0_is_removed": Scenario(_CONSOLE, _vlan_0_is_removed),
    "vlan_0_with_tags": Scenario(_CONSOLE, _vlan_0_with_tags),
    "vlan_hub": Scenario(_CONSOLE, _hub),
    "vlan_own_with_a_tag": Scenario(_CONSOLE, _own_vlan_with_a_tag),
    "vlan_priority_tag": Scenario(_CONSOLE, _priority_tag),
    "vlan_vid_4094": Scenario(_CONSOLE, _number_of_0),
    "vlan_tags_without_vlans": Scenario(_CONSOLE, _tags_without_vlans),
    "vlan_numbers": Scenario(_CONSOLE, _octal),
}
