"""The scenes that are played to both ``vde_switch`` programs."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

from integration.peers.fake_guest import BROADCAST, frame, mac
from integration.peers.vde_switch_scene import Act, Prepare, Scenario, Scene, send_signal
from integration.peers.vde_vlan_scenes import VLAN_SCENARIOS

_DIR = ("-s", "s")
_CONSOLE = (*_DIR, "-M", "m")


def _put(name: str, text: str = "") -> Prepare:
    """Leave a file there."""

    def prepare(directory: Path) -> None:
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    return prepare


def _dead_switch(directory: Path) -> None:
    """Leave what a killed switch leaves."""
    (directory / "s").mkdir()
    for name in ("s/ctl", "m"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(directory / name))


def _empty_directory(directory: Path) -> None:
    (directory / "s").mkdir()


def _say(*commands: str | bytes) -> Act:
    async def act(scene: Scene) -> None:
        scene.say(*commands)

    return act


async def _files(scene: Scene) -> None:
    scene.note_files()


async def _greeting(scene: Scene) -> None:
    scene.notes += scene.console.greeting.splitlines()


async def _pid_file(scene: Scene) -> None:
    pid = int((scene.directory / "pid").read_text())
    scene.notes.append(f"it has {'the' if pid == scene.switch.pid else 'another'} process's number")
    scene.note_files()


async def _ports(scene: Scene) -> None:
    first = scene.attach()
    scene.attach(7, b"user=somebody pid=17")
    scene.say("port/print", "port/print 7", "port/print 3", "port/print 99", "port/print x", "vlan/print")
    await scene.leave(first, 1)
    scene.say("port/print", "port/allprint", "port/allprint 1", "port/allprint 2", "vlan/allprint")
    scene.attach()


async def _traffic(scene: Scene) -> None:
    first, second = scene.attach(), scene.attach()
    first.send(frame(BROADCAST, mac(1)))
    second.receive()
    second.send(frame(mac(1), mac(2), size=100))
    first.receive()
    scene.say("port/print", "hash/print", "port/resetcounter 1", "port/print", "port/resetcounter")
    scene.say("port/print", "port/resetcounter x", "port/resetcounter 99", "port/resetcounter 5")


async def _find(scene: Scene) -> None:
    first, second = scene.attach(), scene.attach()
    first.send(frame(BROADCAST, mac(1)))
    second.receive()
    scene.say("hash/find 02:00:00:00:00:01", "hash/find 2:0:0:0:0:1 0", "hash/find 02:00:00:00:00:01 1")
    scene.say("hash/find", "hash/find nonsense", "hash/find 02:00:00:00:00:09")


async def _many_addresses(scene: Scene) -> None:
    first, second = scene.attach(), scene.attach()
    for address in (b"\xfe\xfd\0\0\0\1", b"\x52\x54\0\x12\x34\x56", mac(200)):
        first.send(frame(BROADCAST, address))
        second.receive()
        scene.say("hash/print")
        await scene.leave(first, 1)
        first = scene.attach(1)


async def _numports(scene: Scene) -> None:
    clients = [scene.attach(), scene.attach()]
    scene.say("port/setnumports 2", "port/setnumports 5", "port/showinfo", "port/setnumports 0")
    scene.say("port/setnumports", "port/setnumports x", "port/setnumports 3")
    scene.attach()
    scene.say("port/createauto", "port/create", "port/create 3", "port/create 2", "port/setnumports 40")
    scene.attach()
    await scene.leave(clients[1], 2)
    scene.say("port/showinfo")


async def _created(scene: Scene) -> None:
    scene.say("port/create 3", "port/create 3", "port/create 99", "port/create 0", "port/createauto")
    scene.say("port/allprint", "port/print", "port/print 3")
    scene.attach()
    named = scene.attach(3)
    scene.say("port/remove 3", "port/remove 9", "port/remove 99", "port/remove", "port/remove 1")
    await scene.leave(named, 3)
    scene.say("port/remove 3", "port/allprint")


async def _allocatable(scene: Scene) -> None:
    scene.say("port/create 1", "port/allocatable 1 1", "port/allprint", "port/allocatable 1 0")
    scene.say("port/allocatable 1 x", "port/allocatable 1", "port/allocatable", "port/allocatable 9 1")
    scene.say("port/allocatable 99 1", "port/allocatable 1 2", "port/allprint 1")


async def _owners(scene: Scene) -> None:
    scene.say("port/create 1", "port/setuser 1 root", "port/setgroup 1 daemon", "port/allprint")
    scene.say("port/setuser 1 nosuchuser", "port/setgroup 1 nosuchgroup", "port/setuser 1", "port/setgroup")
    scene.say("port/setuser 9 root", "port/setgroup 9 root", "port/setuser 99 root", "port/setgroup 99 root")
    scene.say("port/setuser 1 NONE", "port/setgroup 1 ANY", "port/allprint")


async def _unplug(scene: Scene) -> None:
    scene.attach()
    scene.say("port/epclose", "port/epclose 1", "port/epclose 9 9", "port/epclose 99 1", "port/epclose 1 99")
    words = scene.console.say("port/print 1").split("endpoint ID ")[1].split()
    # The numbers themselves differ.
    reply = scene.console.say(f"port/epclose 1 {int(words[0])}")
    scene.notes += reply.splitlines()
    scene.say("port/print", "port/allprint")


async def _shared_port(scene: Scene) -> None:
    scene.attach(4)
    scene.attach(4)


async def _out_of_range(scene: Scene) -> None:
    scene.attach(32)
    scene.attach(31)
    scene.attach()


async def _second_console(scene: Scene) -> None:
    scene.say("port/sethub 1", "logout")
    other = type(scene.console)(scene.directory / "m")
    try:
        scene.notes += other.say("port/showinfo").splitlines()
        scene.notes += other.say("shutdown").splitlines()
    finally:
        other.close()
    await scene.switch.wait()


async def _input(scene: Scene) -> None:
    await scene.type_keys(b"ds/showinfo\n")
    await scene.switch.wait_line("1000 Success")
    await scene.type_keys(b"nonsense\n")
    await scene.switch.wait_line("1038")
    await scene.type_keys(b"port/showinfo\nds/showinfo\n")
    await scene.switch.wait_line("1000 Success", 2)


async def _shutdown_by_input(scene: Scene) -> None:
    await scene.type_keys(b"shutdown\n")
    await scene.switch.wait()


async def _logout_by_input(scene: Scene) -> None:
    await scene.type_keys(b"logout\n")
    await scene.end_input()


async def _terminal(scene: Scene) -> None:
    await scene.type_keys(b"ds/showinfo\n")
    await scene.switch.wait_line("1000 Success")
    await scene.type_keys(b"nonsense\n")
    await scene.switch.wait_line("1038")


def _live_switch(directory: Path) -> Callable[[], None]:
    """Let another server have the control socket."""
    (directory / "s").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(directory / "s/ctl"))
    server.listen()
    return server.close


async def _load(scene: Scene) -> None:
    scene.say("load script", f"load {scene.directory}/script", "load", "load /nonexistent", "port/showinfo")


_SCRIPT = "port/setnumports 9\n# a comment\nport/showinfo\nnonsense\n"
_LONG = b"x" * 120 + b"\n"

SCENARIOS: dict[str, Scenario] = {
    "start_plain": Scenario(_DIR, empty_input=True),
    "start_names_of_the_directory": Scenario(("--vdesock", "t", "-unix", "s"), empty_input=True),
    "start_long_names": Scenario(("-sock", "s", "-hub", "--numports=4", "--mod", "660"), empty_input=True),
    "start_existing_directory": Scenario(_DIR, prepare=_empty_directory, empty_input=True),
    "start_after_a_killed_switch": Scenario(_CONSOLE, prepare=_dead_switch, empty_input=True),
    "start_live_switch": Scenario(_DIR, prepare=_live_switch),
    "start_file_in_the_way": Scenario(_DIR, prepare=_put("s")),
    "start_file_in_the_directory": Scenario(_DIR, prepare=_put("s/file"), empty_input=True),
    "start_in_no_directory": Scenario(("-s", "none/s")),
    "start_without_a_name": Scenario(("-s", "")),
    "start_long_path": Scenario(("-s", "x" * 120), empty_input=True),
    "usage_help": Scenario(("--help",)),
    "usage_version": Scenario(("--version",)),
    "option_no_ports": Scenario((*_DIR, "-n", "0")),
    "option_no_number": Scenario((*_DIR, "-n", "x"), empty_input=True),
    "option_group_unknown": Scenario((*_DIR, "-g", "nosuchgroup")),
    "option_mac_wrong": Scenario((*_DIR, "--macaddr", "nonsense")),
    "option_hash_size_rounded": Scenario((*_DIR, "--hashsize", "100"), empty_input=True),
    "option_fstp": Scenario((*_DIR, "-F"), empty_input=True),
    "option_tap_missing": Scenario((*_DIR, "-t", "lo"), empty_input=True, needs_root=True),
    "tap": Scenario((*_CONSOLE, "-t", "vdetest0"), _say("port/print"), needs_root=True),
    "modes_default": Scenario(_CONSOLE, _files),
    "modes_open": Scenario((*_CONSOLE, "-m", "666", "--mgmtmode", "664"), _files),
    "modes_directory": Scenario((*_CONSOLE, "-m", "660", "--dirmode", "1711"), _files),
    "pid_file": Scenario((*_CONSOLE, "-p", "pid"), _pid_file),
    "pid_file_exists": Scenario((*_DIR, "-p", "pid"), prepare=_put("pid")),
    "pid_file_in_no_directory": Scenario((*_DIR, "-p", "none/pid")),
    "console_in_no_directory": Scenario((*_DIR, "--mgmt", "none/m"), empty_input=True),
    "console_file_in_the_way": Scenario((*_DIR, "--mgmt", "m"), prepare=_put("m"), empty_input=True),
    "console_greets": Scenario(_CONSOLE, _greeting),
    "console_help": Scenario(_CONSOLE, _say("help")),
    "console_version": Scenario(_CONSOLE, _say("showinfo")),
    "console_allprint_of_vlan_0": Scenario(_CONSOLE, _say("vlan/allprint 0")),
    "console_lines": Scenario(
        _CONSOLE,
        _say(
            _LONG,
            "port/sethub 1",
            "port/showinfo",
            "port/sethub x",
            "port/showinfo",
            "",
            "# comment",
            "  ds/showinfo",
            "\tds/showinfo  ",
            "ds/showinfo nonsense",
            "ds/showinfox",
        ),
    ),
    "console_reads": Scenario(
        _CONSOLE, _say(b"port/showinfo", b"port/showinfo\0x\n", b"\0\n", b"port/showinfo\nds/showinfo\n")
    ),
    "console_unknown": Scenario(_CONSOLE, _say("nonsense", "ds", "ds/", "port/pr", "\x7f\x01", "help\t")),
    "console_vlan_changes": Scenario(
        _CONSOLE,
        _say("vlan/create 7", "vlan/addport 7 1", "vlan/delport 7 1", "vlan/remove 7", "port/setvlan 1 0"),
    ),
    "console_not_served": Scenario(
        _CONSOLE, _say("fstp/showinfo", "fstp/setfstp 0", "debug/list", "debug/add port", "plugin/list")
    ),
    "console_find": Scenario(_CONSOLE, _find),
    "console_ports": Scenario(_CONSOLE, _ports),
    "console_traffic": Scenario(_CONSOLE, _traffic),
    "console_addresses": Scenario(_CONSOLE, _many_addresses),
    "console_number_of_ports": Scenario((*_CONSOLE, "-n", "3"), _numports),
    "console_created_ports": Scenario((*_CONSOLE, "-n", "8"), _created),
    "console_allocatable": Scenario((*_CONSOLE, "-n", "8"), _allocatable),
    "console_owners": Scenario((*_CONSOLE, "-n", "8"), _owners),
    "console_unplugs": Scenario((*_CONSOLE, "-n", "8"), _unplug),
    "console_loads": Scenario(_CONSOLE, _load, prepare=_put("script", _SCRIPT)),
    "console_logout_and_shutdown": Scenario(_CONSOLE, _second_console),
    "port_shared": Scenario(_CONSOLE, _shared_port),
    "port_out_of_range": Scenario(_CONSOLE, _out_of_range),
    "script_named": Scenario(
        (*_CONSOLE, "-f", "script"), _say("port/showinfo"), prepare=_put("script", "port/setnumports 9\n")
    ),
    "script_of_the_user": Scenario(
        _CONSOLE, _say("port/showinfo"), prepare=_put(".vde2/vde_switch.rc", "port/sethub 1\n")
    ),
    "script_fails": Scenario(
        (*_CONSOLE, "-f", "script"), _say("port/showinfo"), prepare=_put("script", _SCRIPT)
    ),
    "script_missing": Scenario((*_DIR, "-f", "script"), empty_input=True),
    "input_commands": Scenario(_DIR, _input),
    "input_shuts_down": Scenario(_DIR, _shutdown_by_input),
    "input_logs_out": Scenario(_DIR, _logout_by_input),
    "input_from_a_terminal": Scenario(_DIR, _terminal, terminal=True),
    "signal_int": Scenario(_CONSOLE, send_signal(signal.SIGINT)),
    "signal_term": Scenario(_CONSOLE, send_signal(signal.SIGTERM)),
    "usage_errors": Scenario((*_DIR, "--zz", "-xq", "--mg", "--hub=1", "--mgmt"), empty_input=True),
    "usage_letter_without_argument": Scenario((*_DIR, "--priority", "5", "-D", "2", "-p"), empty_input=True),
    "console_shows": Scenario(
        _CONSOLE,
        _say("ds/showinfo", "port/showinfo", "port/print", "port/allprint", "hash/print", "help nonsense"),
    ),
    "console_vlans": Scenario(
        _CONSOLE, _say("vlan/print", "vlan/print 0", "vlan/print 7", "vlan/print 5000", "vlan/print x")
    ),
    "console_hash_settings": Scenario(
        _CONSOLE,
        _say("hash/setexpire 50", "hash/setsize 1024", "hash/setgcint 3", "hash/setsize 0", "hash/setsize x"),
    ),
    "console_hash_limits": Scenario(
        _CONSOLE, _say("hash/showinfo", "hash/setexpire 0", "hash/setexpire", "hash/setminper 4")
    ),
    **VLAN_SCENARIOS,
}
