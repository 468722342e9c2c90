"""A sink whose descriptors are closed whatever the test does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.recording_sink import RecordingSink


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    """Return a sink that takes every session."""
    recording = RecordingSink()
    yield recording
    recording.close_links()
