"""``umlab guest cp``: what its words mean, and what cannot be."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_run import Run
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from support.require import require_program
from umlab.cli.copy import named_sources, target_path
from umlab.cli.copy_place import Place, parse_place
from umlab.cli.copy_script import packing, storing, unpacking
from umlab.errors import LabError
from umlab.guest.inside.archive import ArchiveReader, write_archive


@pytest.fixture
def lab(runtime: Path) -> Iterator[LabThread]:
    with LabThread(runtime, "lan", guests=("left", "right")) as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("left:/root", Place("left", "/root")),
        ("ring/left:a b", Place("ring/left", "a b")),
        ("left:", Place("left", ".")),
        ("left:a:b", Place("left", "a:b")),
        (":/tmp", Place("", "/tmp")),
        ("web*:/tmp", Place("web*", "/tmp")),
        ("/a:b", Place(None, "/a:b")),
        ("./a:b", Place(None, "./a:b")),
        ("a/b/c:d", Place(None, "a/b/c:d")),
        ("file", Place(None, "file")),
        ("-", Place(None, "-")),
    ],
)
def test_word_is_a_place(word: str, place: Place) -> None:
    assert parse_place(word) == place


def test_sources_have_the_names_of_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "b").write_text("")
    monkeypatch.chdir(tmp_path / "a")
    assert named_sources([".", "b/", str(tmp_path)]) == [
        (".", "a"),
        ("b/", "b"),
        (str(tmp_path), tmp_path.name),
    ]
    for paths, text in (
        (["nothing"], "no such"),
        (["b", "../b"], "is called b as well"),
        (["/"], "the name"),
    ):
        with pytest.raises(LabError, match=text):
            named_sources(paths)


def test_target_is_a_folder_or_a_new_name(tmp_path: Path) -> None:
    place = Place("left", "/etc/hosts/")
    assert target_path(place, str(tmp_path)) == str(tmp_path / "hosts")
    assert target_path(place, str(tmp_path / "new")) == str(tmp_path / "new")
    with pytest.raises(LabError, match="no such folder"):
        target_path(place, f"{tmp_path}/new/")
    for path in ("/", ".", "..", ""):
        with pytest.raises(LabError, match="the name"):
            target_path(Place("left", path), str(tmp_path))


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("left:/a",), 2, "write what to copy, and where to"),
        (("a", "b"), 2, "GUEST:PATH on one side"),
        (("left:a", "b", "."), 2, "GUEST:PATH on one side"),
        (("left:a", "right:b"), 2, "one side only"),
        (("--all", "left:a", "b"), 2, "--all is for copying into guests"),
        (("-", "a", "left:b"), 2, "- is a source by itself"),
        (("--json", "left:a", "-"), 2, "--json is for copies to other places"),
        (("a", ":/tmp"), 2, "write the guest before the colon"),
        (("nothing", "left:/tmp"), 1, "nothing: no such file or folder"),
        (("left:/a", "/nowhere/b"), 1, "/nowhere"),
        (("/etc/passwd", "nobody:/tmp"), 3, "no guest nobody"),
        (("/etc/passwd", "n*:/tmp"), 3, "no guest n*"),
        (("--all", "/etc/passwd", "ring:/tmp"), 3, "ring does not run"),
        (("--all", "/etc/passwd", "left:/tmp"), 1, "write left without --all, or --all lan"),
    ],
)
def test_what_cannot_be_copied_is_told(
    words: tuple[str, ...], status: int, text: str, lab: LabThread, run: Run
) -> None:
    done = run("guest", "cp", *words)
    assert done.status == status, done.err
    assert text in done.complaint


def test_lab_whose_guests_have_ended_has_none_that_runs(lab: LabThread, run: Run) -> None:
    def end(fake: FakeLab) -> None:
        for name in ("left", "right"):
            fake.held(name).state = "ended"

    lab.call(end)
    for target, told in (
        ("lan:/", "lan: no guest runs"),
        ("right:/", "right is a guest"),
        (":/", "no guest"),
    ):
        done = run("guest", "cp", "--all", "/etc/passwd", target)
        assert done.status == 1
        assert told in done.complaint


def test_failure_in_one_guest_does_not_keep_others_from_it(lab: LabThread, run: Run) -> None:
    lab.call(lambda fake: setattr(fake.held("left"), "state", "silent"))
    done = run("guest", "cp", "--all", "--json", "/etc/passwd", ":/tmp")
    assert done.status == 1
    assert done.err == "umlab: left: guest left has no agent that answers\n"
    left, right = sorted(done.records, key=lambda record: str(record["guest"]))
    problem = "left: guest left has no agent that answers"
    assert (left["lab"], left["guest"], left["path"], left["problems"]) == ("lan", "left", "/tmp", [problem])
    assert 0 < right.pop("seconds") < 60
    size = Path("/etc/passwd").stat().st_size
    facts = {"lab": "lan", "guest": "right", "path": "/tmp", "files": 1, "bytes": size, "problems": []}
    assert right == facts


class GuestShell:
    """A shell that does what a guest's would, in a folder here.

    Args:
        words: What starts it.
        folder: Where it begins.
    """

    def __init__(self, words: list[str], folder: Path) -> None:
        self._words = words
        self.folder = folder

    def run(self, script: str, data: bytes = b"", *, room: int = -1) -> subprocess.CompletedProcess[bytes]:
        """Run a script; no file in it becomes larger than ``room``."""

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

        script = script.replace("/run/umlab/busybox", str(require_program("busybox")))
        return subprocess.run(
            [*self._words, "-c", script],
            cwd=self.folder,
            input=data,
            capture_output=True,
            preexec_fn=None if room < 0 else limit,
            check=False,
        )

    def put(self, source: Path, place: str, *, room: int = -1) -> tuple[int, list[str]]:
        """Copy something there, and return the status and what was said."""
        archive = b"".join(write_archive([(str(source), source.name)], lambda _: None))
        done = self.run(unpacking(place, is_one=True), archive, room=room)
        return done.returncode, done.stderr.decode().splitlines()


@pytest.fixture(params=["sh", "busybox"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> GuestShell:
    (tmp_path / "guest").mkdir()
    words = ["/bin/sh"] if request.param == "sh" else [str(require_program("busybox")), "sh"]
    return GuestShell(words, tmp_path / "guest")


def test_file_for_which_there_is_no_room_leaves_the_old_one(shell: GuestShell, tmp_path: Path) -> None:
    (tmp_path / "conf").write_bytes(bytes(300_000))
    with (tmp_path / "holes").open("wb") as file:
        file.seek(5 << 20)
        file.write(bytes(50_000))
    for name in ("conf", "holes"):
        (shell.folder / name).write_text("good")
        for place in (name, "."):
            assert shell.put(tmp_path / name, place, room=100_000)[0] == 1
    done = shell.run(storing("conf"), bytes(300_000), room=100_000)
    assert (done.returncode, b"too large" in done.stderr) == (1, True)
    assert shell.put(tmp_path / "conf", "new", room=100_000) == (1, ["tar: write error: File too large"])
    assert shell.put(tmp_path / "holes", "new", room=100_000) == (1, ["holes: File too large"])
    assert {path.name: path.read_text() for path in shell.folder.iterdir()} == dict.fromkeys(
        ("conf", "holes"), "good"
    )


def test_what_cannot_be_put_in_its_place_is_named_and_the_rest_is_there(
    shell: GuestShell, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "b").mkdir(parents=True)
    for name in ("a", "b/in", "c", ".d"):
        (tree / name).write_text("new")
    (shell.folder / "tree/a").mkdir(parents=True)
    (shell.folder / "tree/b").write_text("old")
    assert shell.put(tree, ".") == (1, ["tree/a: is a folder", "tree/b: is no folder"])
    assert (shell.folder / "tree/b").read_text() == "old"
    assert sorted(os.listdir(shell.folder / "tree")) == [".d", "a", "b", "c"]
    assert shell.put(tree, "tree/c") == (1, ["tree/c: is no folder"])
    assert shell.put(tree / "c", "nowhere/c") == (1, ["nowhere: no such folder"])
    assert shell.put(tree / "c", "tree/c/d") == (1, ["tree/c: no such folder"])
    assert shell.run(storing("tree")).stderr == b"tree: is a folder\n"
    assert shell.run(packing("nowhere")).stderr == b"nowhere: no such file or folder\n"
    assert list(shell.folder.rglob(".umlab*")) == []


def test_paths_may_have_any_form(shell: GuestShell, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (shell.folder / "-x y/it's").mkdir(parents=True)
    for place in ("-f", "./-g", f"{shell.folder}/h", "-x y", "-x y/it's/", "-x y/*"):
        assert shell.put(tmp_path / "a", place) == (0, [])
    found = sorted(str(path.relative_to(shell.folder)) for path in shell.folder.rglob("*") if path.is_file())
    assert found == ["-f", "-g", "-x y/*", "-x y/a", "-x y/it's/a", "h"]
    for place in ("-f", "-x y"):
        assert len(list(ArchiveReader().feed(shell.run(packing(place)).stdout))) >= 2
