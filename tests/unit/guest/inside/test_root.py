"""The tiny root's archive, without booting it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from umlab.errors import LabError
from umlab.guest.inside import root
from umlab.guest.inside.agent_line import SESSIONS
from umlab.guest.inside.cpio import Member, parse_archive
from umlab.guest.inside.root import build_initramfs, find_busybox


@pytest.fixture
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that lists three applets; a script is not statically linked, so that check is off."""
    program = tmp_path / "busybox"
    program.write_text("#!/bin/sh\necho busybox; echo sh; echo mount\n")
    program.chmod(0o755)
    monkeypatch.setattr(root, "find_busybox", lambda: str(program))
    return program


def members(archive: bytes) -> dict[str, Member]:
    return {member.name: member for member in parse_archive(archive)}


def test_root_has_init_agent_applets_and_devices(busybox: Path) -> None:
    found = members(build_initramfs())
    assert found["init"].data.startswith(b"#!/bin/busybox sh\n")
    assert stat.S_IMODE(found["init"].mode) == 0o755
    for name in ("agent", "session", "terminal"):
        script = Path(root.__file__).with_name(f"{name}.sh")
        assert found[f"umlab/{name}"].data == script.read_bytes()
    assert found["bin/busybox"].data == busybox.read_bytes()
    assert found["bin/sh"].data == found["bin/mount"].data == b"busybox"
    assert found["etc/modules"].data == b""
    assert stat.S_ISCHR(found["dev/console"].mode)
    assert found["dev/console"].device == (5, 1)
    assert found[f"dev/ttyS{2 * SESSIONS}"].device == (4, 64 + 2 * SESSIONS)


def test_every_folder_comes_before_what_is_in_it(busybox: Path) -> None:
    seen: set[str] = set()
    for name in members(build_initramfs()):
        assert os.path.dirname(name) in seen | {""}
        seen.add(name)


def test_equal_roots_are_equal_bytes(busybox: Path) -> None:
    assert build_initramfs() == build_initramfs()


def test_modules_come_along_in_load_order(busybox: Path, tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k/a.ko").write_bytes(b"A")
    (tmp_path / "k/b-b.ko").write_bytes(b"B")
    (tmp_path / "modules.dep").write_text("k/a.ko:\nk/b-b.ko: k/a.ko\n")
    (tmp_path / "modules.builtin").write_text("")
    found = members(build_initramfs(["b_b"], release="1", modules_directory=str(tmp_path)))
    assert found["etc/modules"].data == b"/lib/modules/a.ko\n/lib/modules/b-b.ko\n"
    assert found["lib/modules/b-b.ko"].data == b"B"


def test_optional_module_that_the_kernel_does_not_have_is_left_out(busybox: Path, tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k/a.ko").write_bytes(b"A")
    (tmp_path / "modules.dep").write_text("k/a.ko:\n")
    (tmp_path / "modules.builtin").write_text("")

    def modules(*names: str, optional: tuple[str, ...], directory: Path = tmp_path) -> bytes:
        archive = build_initramfs(names, optional=optional, release="1", modules_directory=str(directory))
        return members(archive)["etc/modules"].data

    assert modules(optional=("overlay", "a")) == b"/lib/modules/a.ko\n"
    assert modules(optional=("overlay",)) == b""
    # As a kernel that has all built in, and no directory.
    assert modules(optional=("a",), directory=tmp_path / "none") == b""
    with pytest.raises(LabError):
        modules("a", optional=(), directory=tmp_path / "none")


def test_busybox_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path))
    with pytest.raises(LabError, match=r"cannot read .*Is a directory"):
        find_busybox()


def test_init_and_agent_never_end_the_machine() -> None:
    """Run as a host process by accident, such a command would end the host."""
    for script in Path(root.__file__).parent.glob("*.sh"):
        words = script.read_text().split()
        assert not {"poweroff", "reboot", "halt", "shutdown"} & set(words)


def test_missing_busybox_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / "none"))
    with pytest.raises(LabError, match="busybox-static"):
        find_busybox()


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x02" + bytes(20)])
def test_busybox_that_is_no_static_program_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tmp_path / "busybox").write_bytes(content)
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / "busybox"))
    with pytest.raises(LabError, match=r"not statically linked.*busybox-static"):
        find_busybox()


def test_dynamic_program_is_told_from_a_static_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: os.path.realpath("/bin/sh"))
    with pytest.raises(LabError, match="not statically linked"):
        find_busybox()
