"""Published doubles for the tests of programs that use umlab: guests without kernels."""

from umlab.testing.guest import SimulatedGuest, SimulatedGuests

__all__ = ["SimulatedGuest", "SimulatedGuests"]
