"""The command line that benchmarks share."""

from __future__ import annotations

import argparse


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with ``--rounds``, ``--quick`` and ``--only``, to which a benchmark may add."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5, help="undisturbed rounds of each comparison")
    parser.add_argument("--quick", action="store_true", help="short rounds, for development only")
    parser.add_argument("--only", metavar="NAME", help="only comparisons whose name contains this")
    return parser
