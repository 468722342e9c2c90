"""The load order of any set of modules: complete, without doubles, and never before what is needed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import LabError, RemoteProtocolError
from umlab.guest.kernel.module import MODULES_ROOT, load_index, parse_modules

INSTALLED = sorted(path.name for path in Path(MODULES_ROOT).glob("*") if (path / "modules.dep").exists())


@st.composite
def dependency_lists(draw: st.DrawFn) -> dict[int, list[int]]:
    """Draw, for each module, all that it needs as depmod lists it: the most basic one last."""
    closure: dict[int, list[int]] = {}
    for module in range(draw(st.integers(1, 12))):
        order: list[int] = []
        for direct in draw(st.lists(st.sampled_from(range(module)), unique=True)) if module else []:
            order = [direct, *closure[direct], *order]
        # The last mention counts: it is the one that everything else is in front of.
        closure[module] = [name for at, name in enumerate(order) if name not in order[at + 1 :]]
    return closure


@given(dependency_lists(), st.data())
def test_load_order_is_complete_and_sorted(closure: dict[int, list[int]], data: st.DataObject) -> None:
    lines = (f"m/{name}.ko: {' '.join(f'm/{n}.ko' for n in needs)}\n" for name, needs in closure.items())
    asked = data.draw(st.lists(st.sampled_from(sorted(closure)), max_size=5))
    order = parse_modules("".join(lines).encode(), b"").load_order(map(str, asked))
    wanted = {f"m/{n}.ko" for name in asked for n in [name, *closure[name]]}
    assert sorted(order) == sorted(wanted)
    for at, path in enumerate(order):
        needs = closure[int(path.removeprefix("m/").removesuffix(".ko"))]
        assert {f"m/{name}.ko" for name in needs} <= set(order[:at])


@given(st.binary(max_size=300), st.text(max_size=20))
def test_any_list_is_parsed_or_refused(data: bytes, name: str) -> None:
    with contextlib.suppress(RemoteProtocolError):
        index = parse_modules(data, data)
        with contextlib.suppress(LabError):
            index.load_order([name])


@pytest.mark.skipif(not INSTALLED, reason="no modules for guests: install the package user-mode-linux")
def test_every_installed_module_comes_after_what_it_needs() -> None:
    for release in INSTALLED:
        where, index = load_index(release)
        assert len(index.needs) > 100
        for name, (path, needs) in index.needs.items():
            order = index.load_order([name])
            assert order[-1] == path
            assert set(order) == {path, *needs}
            for at, loaded in enumerate(order):
                own = loaded.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
                assert set(index.needs[own][1]) <= set(order[:at])
            assert (Path(where) / path).exists()
