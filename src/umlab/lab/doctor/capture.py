"""What captures need."""

from __future__ import annotations

from umlab.capture.filter import PACKAGE, why_no_library
from umlab.lab.doctor.finding import Status, Subject, Verdict


def check_libpcap(_subject: Subject) -> Verdict:
    """Load the library that compiles filters."""
    reason = why_no_library()
    if not reason:
        return Verdict(Status.OK, "captures take filters")
    detail = f"captures take filters only as tcpdump -ddd prints them: {reason}"
    return Verdict(Status.WARN, detail, f"apt-get install {PACKAGE}")
