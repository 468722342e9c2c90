"""A kernel's options, from programs that answer well, badly, too much, late or never."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlab.errors import LabError
from umlab.guest.kernel import answer
from umlab.guest.kernel.config import TransportSupport, parse_config, read_kernel_config, transports_of

LEGACY = {"CONFIG_UML_NET": "y", "CONFIG_UML_NET_DAEMON": "y"}
VECTOR = {"CONFIG_UML_NET_VECTOR": "y"}


def program(folder: Path, script: str) -> str:
    """Return the path of a program that runs a shell script, whatever it is asked."""
    path = folder / "linux"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_options_are_what_is_set() -> None:
    text = b"""\
#
# Linux/um 6.1 Kernel Configuration
CONFIG_UML=y
# CONFIG_UML_NET_PCAP is not set
CONFIG_VLAN_8021Q=m
CONFIG_PATH="/run/\xff"
CONFIG_EMPTY=
 CONFIG_INDENTED=y
CONFIG_NO_VALUE
CONFIG_LAST=0x40"""
    assert parse_config(text) == {
        "CONFIG_UML": "y",
        "CONFIG_VLAN_8021Q": "m",
        "CONFIG_PATH": '"/run/\ufffd"',
        "CONFIG_EMPTY": "",
        "CONFIG_LAST": "0x40",
        "release": "6.1",
    }


@pytest.mark.parametrize(
    ("config", "daemon", "vector"),
    [
        (LEGACY | VECTOR, (), ()),
        (LEGACY, (), ("CONFIG_UML_NET_VECTOR",)),
        (VECTOR, ("CONFIG_UML_NET", "CONFIG_UML_NET_DAEMON"), ()),
        ({"CONFIG_UML_NET": "y"}, ("CONFIG_UML_NET_DAEMON",), ("CONFIG_UML_NET_VECTOR",)),
        (LEGACY | {"CONFIG_UML_NET": "n"}, ("CONFIG_UML_NET",), ("CONFIG_UML_NET_VECTOR",)),
    ],
)
def test_transport_lacks_the_options_that_are_not_there(
    config: dict[str, str], daemon: tuple[str, ...], vector: tuple[str, ...]
) -> None:
    support = transports_of(config)
    assert support[0] == TransportSupport("daemon", daemon)
    assert {each.missing for each in support if each.kind in ("bess", "tap", "l2tpv3", "gre")} == {vector}


@pytest.mark.parametrize(
    ("config", "legacy", "vector"),
    [
        ({"CONFIG_UML_NET_VDE": "y", "release": "6.1"} | LEGACY | VECTOR, (), ("Linux 6.12",)),
        ({"release": "6.11"} | LEGACY | VECTOR, ("CONFIG_UML_NET_VDE",), ("Linux 6.12",)),
        ({"release": "6.12"} | VECTOR, ("CONFIG_UML_NET", "CONFIG_UML_NET_VDE"), ()),
        ({"release": "7.0"}, ("CONFIG_UML_NET", "CONFIG_UML_NET_VDE"), ("CONFIG_UML_NET_VECTOR",)),
        (VECTOR, ("CONFIG_UML_NET", "CONFIG_UML_NET_VDE"), ("Linux 6.12",)),
        (
            {},
            ("CONFIG_UML_NET", "CONFIG_UML_NET_VDE"),
            ("CONFIG_UML_NET_VECTOR", "Linux 6.12"),
        ),
    ],
)
def test_vde_of_the_vector_drivers_has_no_option_and_comes_with_a_release(
    config: dict[str, str], legacy: tuple[str, ...], vector: tuple[str, ...]
) -> None:
    missing = {each.kind: each.missing for each in transports_of(config)}
    assert (missing["vde"], missing["vec-vde"]) == (legacy, vector)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (b"#\n# Linux/um 6.12.117 Kernel Configuration\n", "6.12"),
        (b"# Linux/x86 6.1.0-rc3+ Kernel Configuration", "6.1"),
        (b"CONFIG_X=y # Linux/um 6.12 Kernel", None),
        (b"# Linux/um 99999.1 Kernel Configuration", None),
    ],
)
def test_release_is_in_the_head(text: bytes, release: str | None) -> None:
    assert parse_config(text).get("release") == release


def test_program_is_asked_by_its_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, 'echo "CONFIG_UML=y"; echo "CONFIG_ASKED=$*"; echo "CONFIG_STDIN=$(wc -c)"')
    monkeypatch.chdir(tmp_path)
    assert read_kernel_config("linux") == {
        "CONFIG_UML": "y",
        "CONFIG_ASKED": "--showconfig",
        "CONFIG_STDIN": "0",
    }


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "does not say CONFIG_UML=y"),
        ("echo CONFIG_X86=y", "does not say CONFIG_UML=y"),
        ("echo CONFIG_UML=y; exit 3", "does not know --showconfig"),
        ("echo CONFIG_UML=y; kill -SEGV $$", "does not know --showconfig"),
        ("while :; do echo CONFIG_UML=y; done", "writes more than"),
        ("echo CONFIG_UML=y; sleep 600", "does not end within"),
        ("echo CONFIG_UML=y; exec >&-; sleep 600", "does not end within"),
        ("echo CONFIG_UML=y; sleep 600 & exit 0", "does not end within"),
    ],
)
def test_program_that_is_no_kernel_is_told_with_one_that_is(
    script: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "TIMEOUT", 0.5 if "sleep" in script else 60)
    kernel = program(tmp_path, script)
    with pytest.raises(LabError, match=words) as refusal:
        read_kernel_config(kernel)
    assert str(refusal.value).startswith(f"{kernel} is not a User Mode Linux kernel: ")
    assert str(refusal.value).endswith("Debian's is /usr/bin/linux, from the package user-mode-linux")


def test_what_a_program_leaves_behind_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "TIMEOUT", 60)
    kernel = program(tmp_path, "sleep 600 >/dev/null & echo CONFIG_UML=y")
    # That it has ended is what every test is checked for.
    assert read_kernel_config(kernel) == {"CONFIG_UML": "y"}


def test_program_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "broken").write_bytes(b"\x7fELF")
    (tmp_path / "broken").chmod(0o755)
    for path, words in (
        (tmp_path / "none", "No such file"),
        (tmp_path / "text", "Permission denied"),
        (tmp_path / "broken", "Exec format error"),
        (tmp_path, "Permission denied"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(LabError, match=words) as refusal:
            read_kernel_config(str(path))
        assert str(refusal.value).startswith(f"cannot run the kernel {path}: ")
