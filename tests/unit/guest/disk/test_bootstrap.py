"""Images of a Debian system, with a program in the place of mmdebstrap."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from support.require import require_program
from umlab.errors import LabError
from umlab.guest.disk import bootstrap
from umlab.guest.disk.apt_source import read_sources
from umlab.guest.disk.bootstrap import Bootstrap, build_image
from umlab.guest.disk.image import list_images

#: Does what mmdebstrap does with its words: the archive is the last one but for the mirrors.
MAKES = """
for word; do case "$word" in *.tar) archive=$word;; esac; done
echo "I: running apt-get update..."
cd "$(mktemp -d)" && mkdir -p etc run && echo "$@" >etc/words && tar -cf "$archive" etc run
"""
FAILS = """
echo "I: running apt-get update..."
echo "E: {error}" >&2
echo "E: mmdebstrap failed to run" >&2
exit 25
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return folder


def provide(programs: Path, script: str) -> None:
    (programs / "mmdebstrap").write_text(f"#!/bin/sh\n{script}")
    (programs / "mmdebstrap").chmod(0o755)


def test_image_is_made_of_the_system_and_what_is_said_is_passed_on(programs: Path) -> None:
    require_program("fakeroot")
    provide(programs, MAKES)
    lines: list[str] = []
    build_image("made", Bootstrap("bookworm"), lines.append, size=16 << 20)
    (image,) = list_images()
    assert (image.name, image.size, image.file_system) == ("made", 16 << 20, "ext4")
    assert lines == ["I: running apt-get update...", "I: making the file system..."]
    assert sorted(os.listdir(programs.parent)) == ["bin", "data"]


def test_command_has_what_is_asked_for_and_an_init() -> None:
    system = Bootstrap("trixie", "apt", ("iproute2", "less"), ("http://mirror/debian",))
    command = system.command("root.tar")
    assert command[0] == "mmdebstrap"
    assert command[-3:] == ["trixie", "root.tar", "http://mirror/debian"]
    assert {"--format=tar", "--variant=apt", "--include=systemd-sysv,iproute2,less"} < set(command)
    assert "--include=sysvinit-core" in Bootstrap("sid", include=("sysvinit-core",)).command("root.tar")
    # The hook is one word for mmdebstrap and a command for its shell.
    (hook,) = (word.partition("=")[2] for word in command if word.startswith("--customize-hook="))
    assert shlex.split(hook)[0] == "cd"


def test_terminal_is_the_users_and_the_machines_own_facts_are_not_in_the_image(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("hostname", "resolv.conf", "shadow"):
        (tmp_path / "etc" / name).touch()
    (hook,) = (word for word in Bootstrap("sid").command("x.tar") if word.startswith("--customize-hook="))
    script = hook.partition("=")[2]
    assert os.spawnlp(os.P_WAIT, "sh", "sh", "-c", script, "sh", str(tmp_path)) == 0
    units = tmp_path / "etc/systemd/system"
    assert os.readlink(units / "ctrl-alt-del.target") == "/lib/systemd/system/poweroff.target"
    assert os.readlink(units / "getty-static.service") == "/dev/null"
    assert (
        "\nExecStart=-/sbin/agetty --autologin root"
        in (units / "getty@tty1.service.d/umlab.conf").read_text()
    )
    assert sorted(os.listdir(tmp_path / "etc")) == ["shadow", "systemd"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            "Failed to fetch http://x/InRelease  Could not resolve 'x'",
            r"Could not resolve 'x'; is there a network\? Another mirror is taken with --mirror$",
        ),
        (
            "Unable to locate package nosuch",
            "Unable to locate package nosuch, which the suite does not have$",
        ),
        ("unable to pick chroot mode automatically", "; as root: apt-get install fakechroot$"),
        ("something else", "^mmdebstrap failed: something else$"),
    ],
)
def test_failure_is_told_by_its_reason_with_what_helps(programs: Path, error: str, words: str) -> None:
    provide(programs, FAILS.format(error=error))
    with pytest.raises(LabError, match=words):
        build_image("made", Bootstrap("bookworm"), lambda _: None)
    assert list_images() == []


def test_interrupt_leaves_nothing_of_a_program_that_cannot_clean_up(programs: Path, tmp_path: Path) -> None:
    provide(programs, 'mkdir "$TMPDIR/half" && touch "$TMPDIR/half/file" && echo "$TMPDIR" && exec sleep 600')
    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        if len(lines) == 1:
            assert os.listdir(line) == ["half"]
            # Packages are fetched by another user.
            assert os.stat(line).st_mode & 0o777 == 0o711
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_image("made", Bootstrap("bookworm"), interrupt)
    assert lines[1:] == ["I: ending mmdebstrap, and removing what it has made..."]
    assert sorted(os.listdir(tmp_path)) == ["bin", "data"]
    assert os.listdir(tmp_path / "data/umlab/images") == []


def test_failure_without_a_word_has_the_status(programs: Path) -> None:
    provide(programs, "exit 3")
    with pytest.raises(LabError, match=r"^mmdebstrap failed: status 3$"):
        build_image("made", Bootstrap("bookworm"), lambda _: None)


def test_missing_mmdebstrap_is_told_before_anything_is_done(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = shutil.which
    monkeypatch.setattr(
        "shutil.which", lambda name, **place: None if name == "mmdebstrap" else which(name, **place)
    )
    with pytest.raises(LabError, match=r"no mmdebstrap here; as root: apt-get install mmdebstrap$"):
        build_image("made", Bootstrap("bookworm"), lambda _: None)


@pytest.mark.parametrize(
    ("suite", "variant", "include", "mirrors", "words"),
    [
        ("-x", "apt", (), (), "'-x' is no name of a suite"),
        ("sid", "tiny", (), (), "no variant 'tiny'; there are essential, apt"),
        ("sid", "apt", ("a,b",), (), "'a,b' is no name of a package"),
        ("sid", "apt", (), ("--hook=x",), "'--hook=x' is no address of a mirror"),
        ("sid", "apt", (), ("",), "'' is no address of a mirror"),
    ],
)
def test_words_that_mmdebstrap_would_misunderstand_are_refused(
    suite: str, variant: str, include: tuple[str, ...], mirrors: tuple[str, ...], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        Bootstrap(suite, variant, include, mirrors)


def test_mirrors_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://near/debian bookworm main\n")
    sources = read_sources(str(tmp_path))
    monkeypatch.setattr(bootstrap, "read_sources", lambda: sources)
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"VERSION_CODENAME": "bookworm"})
    assert bootstrap.own_suite() == "bookworm"
    assert bootstrap.own_mirrors("bookworm") == ("deb http://near/debian bookworm main",)
    assert bootstrap.own_mirrors("trixie") == ("deb http://near/debian trixie main",)
    monkeypatch.setattr(bootstrap, "read_sources", list)
    assert bootstrap.own_mirrors("trixie") == ()


def test_machine_without_a_name_of_its_release_has_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr("platform.freedesktop_os_release", missing)
    assert bootstrap.own_suite() == "bookworm"
