"""Tables of benchmarks are made of raw figures, the page of the documents too."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measure import machine, report
from bench.measure.document import PAGE, document
from bench.measure.rounds import Comparison

COMPARISON = Comparison(
    "unicast-64",
    "At saturation",
    {"rate": "frames/s", "loss": "%"},
    4,
    [
        {
            "C": {"rate": 65_000.0, "loss": 0.1},
            "ours": {"rate": 227_500.0, "loss": 0.0},
            "py": "does not come up",
        },
        {
            "C": {"rate": 60_000.0, "loss": 0.1},
            "ours": {"rate": 240_000.0, "loss": 0.5},
            "py": "does not come up",
        },
        {
            "C": {"rate": 70_000.0, "loss": 0.1},
            "ours": {"rate": 210_000.0, "loss": 12.345},
            "py": "does not come up",
        },
    ],
    [{"C": {"rate": 1.0, "loss": 0.0}, "ours": {"rate": 1.0, "loss": 0.0}, "py": "does not come up"}],
)


def test_table_of_a_comparison() -> None:
    assert list(report.table(COMPARISON)) == [
        "### At saturation",
        "",
        "`unicast-64`: 3 rounds of 4 that were wanted, 1 disturbed and repeated.",
        "",
        "| | rate, frames/s | loss, % |",
        "|---|---|---|",
        "| C | 65,000 (60,000-70,000) | 0.10 (0.10-0.10) |",
        "| ours | 227,500 (210,000-240,000), **3.50x** (3.00-4.00) | 0.50 (0-12.3) |",
        "| py | does not come up |  |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567.8, "1,234,568"), (99.94, "99.9"), (3.456, "3.46"), (0.0123, "0.0123"), (8, "8")],
)
def test_number_keeps_three_digits(value: float, text: str) -> None:
    assert report.number(value) == text


def test_raw_figures_give_the_same_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "OUTPUT", tmp_path / "new")
    facts = machine.facts()
    report.write("switch", facts, [COMPARISON])
    again = report.read(tmp_path / "new/switch.json")
    assert again == report.Report(facts, [COMPARISON])
    assert capsys.readouterr().out.splitlines() == list(report.tables(again))
    assert "| C | 65,000 (60,000-70,000) | 0.10 (0.10-0.10) |" in document(tmp_path / "new").splitlines()


def test_facts_name_the_machine_and_the_peers() -> None:
    facts = machine.facts()
    assert {"date", "umlab", "processor", "cores", "kernel", "net.unix.max_dgram_qlen", "Python"} <= set(
        facts
    )
    assert all(facts.values())


def test_page_is_made_of_the_raw_figures_beside_it() -> None:
    assert PAGE.read_text() == document(), "run: python tests/bench/publish.py"
