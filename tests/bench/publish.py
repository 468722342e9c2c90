"""Puts the figures of the last ``make bench`` into the documents.

Run as ``python tests/bench/publish.py``.  Copies ``build/bench/*.json`` to ``docs/reference/benchmarks``, and
writes ``docs/reference/benchmarks.md`` from what is there.
"""

from __future__ import annotations

import shutil

from measure.document import RAW, write_document
from measure.report import OUTPUT


def main() -> None:
    """Copy and write."""
    RAW.mkdir(exist_ok=True)
    for path in sorted(OUTPUT.glob("*.json")):
        shutil.copyfile(path, RAW / path.name)
    write_document()


if __name__ == "__main__":
    main()
