"""Where a switch listens: short forms become whole, and what no socket address holds is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlab.daemon.spec import DEFAULT_KINDS, default_listen, resolve_listen
from umlab.errors import TransportError
from umlab.transports.registry import TRANSPORTS, parse_listen

RUNTIME = Path("/run/lab")


@pytest.mark.parametrize(
    ("spec", "resolved"),
    [
        ("daemon", "daemon:/run/lab/lan.ctl"),
        ("bess", "bess:/run/lab/lan.bess"),
        ("daemon:/p.ctl", "daemon:/p.ctl"),
        ("daemon:p.ctl,../p.data", "daemon:/lab/folder/p.ctl,/lab/p.data"),
        ("daemon:p.ctl,", "daemon:/lab/folder/p.ctl"),
        ("bess:p", "bess:/lab/folder/p"),
        ("tap:tap0", "tap:tap0"),
    ],
)
def test_place_becomes_whole(spec: str, resolved: str) -> None:
    assert resolve_listen(spec, "lan", RUNTIME, "/lab/folder") == resolved
    assert parse_listen(resolved).where == resolved.partition(":")[2]


def test_relative_place_begins_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_listen("bess:p", "lan", RUNTIME) == f"bess:{tmp_path}/p"
    assert default_listen("bess", "lan", Path("run")) == f"bess:{tmp_path}/run/lan.bess"


def test_default_kinds_are_all_that_have_a_place_of_their_own() -> None:
    places = [default_listen(kind, "lan", RUNTIME) for kind in DEFAULT_KINDS]
    assert {"daemon:/run/lab/lan.ctl", "bess:/run/lab/lan.bess"} <= set(places)
    assert len(set(places)) == len(places) == len([each for each in TRANSPORTS.values() if each.default])


@pytest.mark.parametrize(
    "spec", ["", "tap", "tap:", "daemon:", "bess:", "none", "none:/x", ":/x", "daemon /x"]
)
def test_what_is_no_place_is_refused_with_what_would_be(spec: str) -> None:
    with pytest.raises(TransportError, match=r"write one of daemon, bess.* daemon:CTL\[,DATA\], bess:PATH"):
        resolve_listen(spec, "lan", RUNTIME)


@pytest.mark.parametrize("spec", [f"daemon:/{'x' * 107}", f"daemon:/a,/{'x' * 107}", f"bess:{'x' * 106}"])
def test_place_that_no_address_holds_is_refused(spec: str) -> None:
    with pytest.raises(TransportError, match="at most 107"):
        resolve_listen(spec, "lan", RUNTIME, "/f")


def test_runtime_directory_that_no_guest_could_be_told_is_refused() -> None:
    with pytest.raises(TransportError, match="at most 107"):
        default_listen("daemon", "lan", Path("/" + "x" * 100))
    with pytest.raises(TransportError, match=r"/run/a,b/lan\.ctl has a comma"):
        default_listen("daemon", "lan", Path("/run/a,b"))


@pytest.mark.parametrize(
    ("spec", "folder", "why"),
    [
        ("bess:relative", None, "not an absolute path"),
        ("daemon:/s/ctl,relative", None, "not an absolute path"),
        ("bess:/s/a\nb", "", "control character"),
        ("daemon:/s/ctl,/s/data,/s/more", "", "comma"),
    ],
)
def test_place_that_is_not_what_it_seems_is_refused(spec: str, folder: str | None, why: str) -> None:
    with pytest.raises(TransportError, match=why):
        resolve_listen(spec, "lan", Path("/run"), folder)
