"""Captures: made, read and ended by control, filled by the engine's thread.

Where new blocks find no room, a reader takes the old ones out beside the engine's thread, which sees only that there
is room again.  Where they drive out the old ones, two would be at the same end of the ring; so there the
engine's thread takes them out itself, in steps.
"""

import contextlib
import os
import threading

from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free

from umlab.engine._native.bpf cimport bpf_copy
from umlab.engine._native.capture cimport (
    LONGEST_BLOCK,
    Place,
    Span,
    capture_close,
    capture_copy,
    capture_open,
    capture_release,
    capture_span,
)
from umlab.engine._native.loop cimport loop_await_burst_end, loop_do
from umlab.engine._native.step cimport (
    TakeOrder,
    WatchOrder,
    step_begin_capture,
    step_end_capture,
    step_find_blocks,
    step_take_blocks,
)
from umlab.engine._native.system cimport (
    __ATOMIC_ACQUIRE,
    __ATOMIC_RELAXED,
    close,
    eventfd_write,
    load_u64,
)
from umlab.engine._native.tally cimport MAX_CAPTURES
from umlab.engine.contract import CaptureCount
from umlab.errors import StateError, SwitchError


cdef class PortTally:
    """What a capture has done with the frames of one port."""


cdef class NativeCapture:
    """Frames of some ports; see ``umlab.engine.contract.Capture`` for the calls.

    Args:
        engine: Whose loop fills it.
        captures: Those of the engine that are open.
        number: The place among them.
        order: What is to be kept.

    Raises:
        SwitchError: There is no descriptor left for it.
        MemoryError: There is no memory for it.
    """

    def __cinit__(self, engine, OpenCaptures captures, int number, order):
        self.ring.ready_fd = -1
        self._engine = engine
        self.number = number
        self._open = captures
        # Taken behind the engine's lock, if both are.
        self._reading = threading.Lock()
        self._ports = order.ports
        self._tallies = {}
        self.ring.capacity = order.capacity
        self.ring.snap_length = order.snap_length
        self.ring.overwrite = order.overwrite
        self.ring.epoch_offset_ns = order.epoch_offset_ns
        if order.program is not None:
            self.ring.program = bpf_copy(order.program)
        if not capture_open(&self.ring):
            raise MemoryError("no memory for a capture")
        try:
            self.ring.ready_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise SwitchError(f"there is no descriptor for a capture: {error}") from error

    def __dealloc__(self):
        if self.ring.ready_fd >= 0:
            close(self.ring.ready_fd)
        capture_close(&self.ring)
        free(self.ring.program)

    def interfaces(self):
        """Return the port numbers in the order of their interface numbers; it only grows."""
        return list(self._tallies)

    def ready_fd(self):
        """Return a descriptor that is readable while a quarter of the memory is used, and after ``close``."""
        return self.ring.ready_fd

    def read(self, size_t most):
        """Take the oldest whole blocks, of ``most`` bytes together, or one if it alone is larger."""
        return self._take(most, True)

    @contextlib.contextmanager
    def lend(self, size_t most):
        """Have what ``read`` takes without a copy, or the first part of it, in a context."""
        cdef Span span
        cdef Place after
        if self.ring.overwrite:
            yield memoryview(self.read(most))
            return
        # The lock is not held meanwhile: whoever ends the capture would wait for a disk.
        with self._reading:
            span = self._oldest(most)
        after.position = self.ring.tail.position + span.first
        after.offset = span.after.offset if span.first == span.size else 0
        with PyMemoryView_FromMemory(<char *>self.ring.memory + self.ring.tail.offset, span.first, PyBUF_READ) as blocks:
            yield blocks
        with self._reading:
            self._release(&after)

    def copy(self):
        """Return all blocks that are held, oldest first, and leave them there."""
        return self._take(self.ring.capacity, False)

    def counts(self):
        """Return the counts of each port in ``interfaces``, by number, read where they are."""
        cdef Loop *loop = self._open._loop
        cdef PortTally port
        counts = {}
        with nogil:
            loop_await_burst_end(loop)
        for port_no, port in self._tallies.copy().items():
            counts[port_no] = CaptureCount(
                load_u64(&port.tally.seen, __ATOMIC_RELAXED),
                load_u64(&port.tally.accepted, __ATOMIC_RELAXED),
                load_u64(&port.tally.lost, __ATOMIC_RELAXED),
            )
        return counts

    def close(self):
        """Keep no more; what is held may still be read.  A second call does nothing."""
        with self._open._control:
            self._open.end(self)

    cdef int admit(self, Attachment attachment) except -1:
        """Have a tally for a port that is attached, if its frames are to be kept; tell whether."""
        cdef PortTally port
        number = attachment.port.core.home.port_no
        if self._ports is not None and number not in self._ports:
            return False
        port = self._tallies.get(number)
        if port is None:
            port = PortTally()
            port.tally.interface = len(self._tallies)
            self._tallies[number] = port
        attachment.port.core.tallies[self.number] = &port.tally
        return True

    cdef bytes _take(self, size_t most, bint consumed):
        if self.ring.overwrite:
            with self._open._control, self._reading:
                return self._take_by_steps(most, consumed)
        with self._reading:
            return self._take_from_reader(most, consumed)

    cdef bytes _take_from_reader(self, size_t most, bint consumed):
        cdef Span span = self._oldest(most)
        cdef bytes data = PyBytes_FromStringAndSize(NULL, span.size)
        cdef uint8_t *to = <uint8_t *><char *>data
        with nogil:
            capture_copy(&self.ring, &self.ring.tail, &span, to)
        if consumed:
            self._release(&span.after)
        return data

    cdef Span _oldest(self, size_t most) noexcept:
        cdef Loop *loop = self._open._loop
        cdef Span span
        cdef uint64_t end = load_u64(&self.ring.head.position, __ATOMIC_ACQUIRE)
        with nogil:
            # A reader that is not late has all that guests can have received.
            if end - self.ring.tail.position < self.ring.quarter:
                loop_await_burst_end(loop)
                end = load_u64(&self.ring.head.position, __ATOMIC_ACQUIRE)
            span = capture_span(&self.ring, &self.ring.tail, end, most)
        return span

    cdef void _release(self, const Place *place) noexcept:
        with nogil:
            capture_release(&self.ring, place)

    cdef bytes _take_by_steps(self, size_t most, bint consumed):
        cdef Loop *loop = self._open._loop
        cdef TakeOrder order
        cdef uint64_t room
        cdef bytes data
        order.ring = &self.ring
        with nogil:
            loop_do(loop, step_find_blocks, &order)
        room = min(order.end - order.place.position, max(<uint64_t>most, <uint64_t>LONGEST_BLOCK))
        data = PyBytes_FromStringAndSize(NULL, room)
        order.to = <uint8_t *><char *>data
        order.most = most
        order.taken = 0
        order.consumed = consumed
        with nogil:
            loop_do(loop, step_take_blocks, &order)
        return data if order.taken == room else data[: order.taken]


cdef class OpenCaptures:
    """The captures of one engine that have not ended; guarded by the engine's lock."""

    def __cinit__(self, control, Registry attached):
        self._control = control
        self._attached = attached
        self._by_number = [None] * MAX_CAPTURES

    def __len__(self):
        return MAX_CAPTURES - self._by_number.count(None)

    cdef NativeCapture begin(self, order, engine):
        """Make a capture and let the engine have it.

        Raises:
            StateError: As many are open as may.
            SwitchError: There is no descriptor left for it.
            MemoryError: There is no memory for it.
        """
        cdef NativeCapture capture
        cdef Attachment attachment
        cdef WatchOrder watch
        if None not in self._by_number:
            raise StateError(f"{MAX_CAPTURES} captures are open already")
        capture = NativeCapture(engine, self, self._by_number.index(None), order)
        for number in self._attached.numbers():
            attachment = self._attached.get(number)
            attachment.port.core.tallies[capture.number] = NULL
            capture.admit(attachment)
        self._by_number[capture.number] = capture
        watch.ring = &capture.ring
        watch.number = capture.number
        watch.first = 0
        with nogil:
            loop_do(self._loop, step_begin_capture, &watch)
        return capture

    cdef int admit(self, Attachment attachment) except -1:
        """Let the captures see a port that the engine is about to have."""
        cdef NativeCapture capture
        for capture in self._by_number:
            if capture is not None and capture.admit(attachment):
                attachment.port.core.captures |= 1 << capture.number
        return 0

    cdef int end(self, NativeCapture capture) except -1:
        """Let a capture see nothing any more; nothing is done about one that has ended."""
        cdef WatchOrder watch
        if self._by_number[capture.number] is not capture:
            return 0
        watch.number = capture.number
        watch.first = 0
        with nogil:
            loop_do(self._loop, step_end_capture, &watch)
        self._by_number[capture.number] = None
        with capture._reading:
            capture.ring.ended = True
            eventfd_write(capture.ring.ready_fd, 1)
        return 0

    cdef int end_all(self) except -1:
        """End them with the engine."""
        for capture in self._by_number:
            if capture is not None:
                self.end(capture)
        return 0
