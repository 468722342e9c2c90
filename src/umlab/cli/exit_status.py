"""What the exit status of a command says, beside 0 and the 2 of a wrong command line."""

from __future__ import annotations

EXIT_ERROR = 1
EXIT_NOT_RUNNING = 3
