"""``umlab guest cp``: what its words mean, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_run import Run
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from umlab.cli.copy import named_sources, target_path
from umlab.cli.copy_place import Place, parse_place
from umlab.errors import LabError


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
