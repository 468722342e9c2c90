"""``umlab kernel``: built, listed, removed, and what is said when that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli_run import Run
from support.deadline import scaled, wait_until
from support.fake_make import KERNEL, RELEASE, FakeMake, is_alive, pid_in
from umlab.cli import kernel_build
from umlab.cli.complete import built_kernel_names, kernel_names
from umlab.cli.output import Output
from umlab.guest.kernel import store as kernel_store
from umlab.guest.watch import group_members


@pytest.fixture
def fake(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMake:
    folder = short_dir / "k"
    folder.mkdir()
    debian = folder / "debian"
    debian.write_text(KERNEL)
    debian.chmod(0o755)
    monkeypatch.setattr(kernel_store, "DEFAULT_KERNEL", str(debian))
    return FakeMake(folder, monkeypatch)


def test_kernel_is_built_listed_and_removed(run: Run, fake: FakeMake) -> None:
    fragment = fake.folder / "mine.config"
    fragment.write_text("CONFIG_MINE=y\n# CONFIG_IPV6 is not set\n")
    fake.behave(dropped="CONFIG_MINE|CONFIG_NET_SCH_TBF")
    done = run("kernel", "build", "--source", str(fake.tree), "--config", str(fragment), "-j", "3")
    assert done.status == 0
    assert "compiling" in done.out
    assert f"linux-6.12: Linux {RELEASE}, built in 0 min " in done.out
    assert done.err.splitlines() == [
        "umlab: this source has CONFIG_NET_SCH_TBF=n, whatever is asked for",
        "umlab: this source has CONFIG_MINE=n, whatever is asked for",
    ]
    assert any("-j3 linux" in line for line in fake.asked)
    listed = run("kernel", "ls")
    assert [line.split()[:3] for line in listed.out.splitlines()[1:]] == [
        ["debian", RELEASE, "no"],
        ["linux-6.12", RELEASE, "no"],
    ]
    assert "bess, tap, l2tpv3, gre" in listed.out
    assert kernel_names("") == ["debian", "linux-6.12"]
    assert kernel_names("l") == built_kernel_names("") == ["linux-6.12"]
    assert kernel_names("x") == []
    assert run("kernel", "rm", "linux-6.12").out == "linux-6.12: removed\n"
    assert run("kernel", "rm", "linux-6.12").status == 1
    assert [record["name"] for record in run("kernel", "ls", "--json").records] == ["debian"]


def test_records_have_all_that_is_known(run: Run, fake: FakeMake) -> None:
    done = run("kernel", "build", "--source", str(fake.tree), "--name", "a", "--debug", "--json")
    (built,) = done.records
    assert "compiling" in done.err
    assert built["kernel"]["path"] == f"{fake.store}/a/linux"
    assert (built["source"], built["not_taken"]) == (str(fake.tree), {})
    (debian, mine) = run("kernel", "ls", "--json").records
    assert (debian["name"], debian["error"]) == ("debian", None)
    assert mine["modules_directory"] == built["kernel"]["modules_directory"]
    assert (mine["transports"]["bess"], mine["features"]["hostfs"], mine["modules"]) == ([], [], False)
    assert mine["transports"]["daemon"] == ["CONFIG_UML_NET", "CONFIG_UML_NET_DAEMON"]
    assert mine["features"]["overlay"] == ["CONFIG_OVERLAY_FS"]


def test_kernel_elsewhere_is_listed_and_one_that_is_broken_is_told(run: Run, fake: FakeMake) -> None:
    for text in (KERNEL, "#!/bin/sh\nexit 1\n"):
        program = fake.folder / f"linux{len(text)}"
        program.write_text(text)
        program.chmod(0o755)
        done = run("kernel", "ls", "--kernel", str(program))
        assert done.status == int(text != KERNEL)
        (record,) = run("kernel", "ls", "--json", "--kernel", str(program)).records[1:]
        assert record["name"] == str(program)
        if text == KERNEL:
            assert done.out.splitlines()[-1].startswith(str(program))
            assert record["path"] == str(program)
        else:
            assert "does not know --version" in done.out.splitlines()[-1]
            assert "does not know --version" in record["error"]


def test_kernel_that_is_not_there_is_no_success_and_those_in_the_store_are_listed_anyway(
    run: Run, fake: FakeMake
) -> None:
    done = run("kernel", "ls", "--kernel", "nope")
    assert (done.status, "there is no kernel 'nope'" in done.out) == (1, True)
    records = run("kernel", "ls", "--kernel", "nope", "--json").records
    assert [record["name"] for record in records] == ["debian", "nope"]
    broken = fake.folder / "data/umlab/kernels/broken"
    broken.mkdir(parents=True)
    assert run("kernel", "ls").status == 0


def test_wrong_words_are_refused_before_anything_is_done(run: Run, fake: FakeMake) -> None:
    (fake.folder / "bad").write_text("no option")
    tree = ("kernel", "build", "--source", str(fake.tree))
    for words, said in (
        (("kernel", "build", "--source", "nothing"), "there is no kernel source nothing"),
        ((*tree, "--name", "a/b"), "the kernel name 'a/b' is not usable"),
        ((*tree, "--name", "debian"), "take another name"),
        ((*tree, "--config", f"{fake.folder}/bad"), "bad: line 1 is no option"),
        ((*tree, "--config", f"{fake.folder}/none"), "cannot read"),
    ):
        done = run(*words)
        assert done.status == 1
        assert said in done.err
    assert run(*tree, "--jobs", "0").status == 2
    assert not (fake.folder / "asked").exists()


def test_removing_what_is_not_there_leaves_nothing(run: Run, fake: FakeMake) -> None:
    done = run("kernel", "rm", "nosuch")
    assert (done.status, "there is no kernel 'nosuch'" in done.err) == (1, True)
    assert list((fake.folder / "cache/umlab/build").iterdir()) == []


def test_archive_that_is_none_is_told_by_who_knows_why(run: Run, fake: FakeMake) -> None:
    archive = fake.folder / "x.tar.xz"
    archive.write_bytes(b"no archive" * 100)
    (line,) = run("kernel", "build", "--source", str(archive)).err.splitlines()[-1:]
    assert "building the kernel x failed: xz: (stdin): File format not recognized; the whole log" in line


def test_failed_build_is_told_in_one_line(run: Run, fake: FakeMake) -> None:
    fake.behave(then="echo 'a.c:1:1: error: \x1b[31mno\x1b[0m'; exit 2")
    done = run("kernel", "build", "--source", str(fake.tree))
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert r"a.c:1:1: error: \x1b[31mno" in line
    assert line.endswith("/linux-6.12/build.log")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_build_with_all_its_processes(fake: FakeMake, number: signal.Signals) -> None:
    child = fake.folder / "child"
    fake.behave(then='sh -c "echo \\$\\$ >$FAKE/child.new; mv $FAKE/child.new $FAKE/child; sleep 600"')
    words = ["kernel", "build", "--source", str(fake.tree)]
    with subprocess.Popen(
        [sys.executable, "-c", "from umlab.cli.main import main; main()", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as build:
        wait_until(lambda: pid_in(child), 20, "it compiles")
        build.send_signal(number)
        out, err = build.communicate(timeout=scaled(20))
    assert build.returncode == 128 + number
    assert err == ""
    assert "compiling" in out
    wait_until(lambda: not is_alive(pid_in(child)), 10, "its compilers have ended")


def test_killed_build_takes_its_compilers_along_and_what_ran_away_meets_no_other(
    run: Run, fake: FakeMake
) -> None:
    child, other = fake.folder / "child", fake.folder / "other"
    # The first one leaves the group of the build.
    waiting = 'sh -c "echo \\$\\$ >$FAKE/{0}.new; mv $FAKE/{0}.new $FAKE/{0}; exec sleep 600"'
    fake.behave(then=f"setsid {waiting.format('other')} & {waiting.format('child')}")
    words = ["kernel", "build", "--source", str(fake.tree)]
    program = [sys.executable, "-c", "from umlab.cli.main import main; main()", *words]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as build:
        wait_until(lambda: pid_in(child) and pid_in(other), 20, "it compiles")
        group = os.getpgid(pid_in(child))
        build.kill()
    try:
        wait_until(lambda: not group_members(group), 10, "its compilers have ended")
        assert "is being built already" in run(*words).err
        assert "is being built already" in run("kernel", "rm", "linux-6.12").err
    finally:
        os.kill(pid_in(other), signal.SIGKILL)
    fake.behave(then="")
    wait_until(lambda: run(*words).status == 0, 10, "it can be built again")


def test_progress_is_one_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = kernel_build._Progress(Output(as_json=False))
    monkeypatch.setattr(progress, "_clock", iter((1.0, 71.0, 71.1, 72.0)).__next__)
    monkeypatch.setattr(progress, "_started", 0.0)
    for stage, objects in (("configuring", 0), ("compiling", 0), ("compiling", 5), ("compiling", 9)):
        progress.show(stage, objects)
    progress.end()
    progress.end()
    lines = capsys.readouterr().out.split("\n")
    assert lines == [
        "\r0:01 configuring\x1b[K",
        "\r1:11 compiling\x1b[K\r1:12 compiling, 9 objects\x1b[K",
        "",
    ]


def test_program_without_a_terminal_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = kernel_build._Progress(Output(as_json=True))
    monkeypatch.setattr(progress, "_clock", iter((1.0, 20.0, 31.5)).__next__)
    monkeypatch.setattr(progress, "_started", 0.0)
    for objects in (0, 5, 9):
        progress.show("compiling", objects)
    captured = capsys.readouterr()
    assert captured.err == "0:01 compiling\n0:31 compiling, 9 objects\n"
    assert captured.out == ""


def test_nothing_is_completed_where_the_store_cannot_be_read(fake: FakeMake) -> None:
    fake.store.parent.mkdir(parents=True)
    fake.store.write_text(json.dumps(os.getpid()))
    assert kernel_names("") == ["debian"]
