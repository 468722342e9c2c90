"""A lab's guest in a word or two."""

from __future__ import annotations

import pytest

from umlab.cli.guest_state import state_text
from umlab.daemon.view import GuestView, GuestVitals


@pytest.mark.parametrize(
    ("answers", "state", "text"),
    [
        (True, None, "ready"),
        (None, "answers", "ready"),
        (None, "unreachable", "ready"),
        (True, "?", "ready"),
        (True, "stopped", "ready, stopped"),
        (None, "silent", "ready, silent"),
        (None, "garbled", "ready, garbled"),
        # What the daemon has seen before counts where the kernel could not be asked, or is late,
        (False, None, "ready, silent"),
        (False, "?", "ready, silent"),
        # and no more once it answers.
        (False, "answers", "ready"),
    ],
)
def test_state_is_the_daemons_word_and_what_is_wrong_with_the_kernel(
    answers: bool | None, state: str | None, text: str
) -> None:
    guest = GuestView("left", "ready", 1, None, "linux", 1, 0.0, (), "/m", answers)
    assert state_text(guest, None if state is None else GuestVitals("left", state)) == text
