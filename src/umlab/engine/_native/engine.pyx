"""The native engine as control sees it: the calls of ``umlab.engine.contract.Engine``.

What is made here is handed to the engine's thread by a step (see ``loop``), and freed when another
step has taken it back.  Counters are read where they are, whether frames move or not.
"""

import os
import threading
from contextlib import suppress
from operator import itemgetter

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from umlab._clock import MonotonicClock
from umlab.engine._descriptor import is_unix_datagram, open_socket
from umlab.engine._native.core cimport MAX_PUNTS, PUNT_SIZE, ForwardingTables, load_mac
from umlab.engine._native.fdb cimport NEVER, Station, fdb_close, fdb_open
from umlab.engine._native.loop cimport (
    Loop,
    Step,
    loop_await_burst_end,
    loop_await_end,
    loop_call,
    loop_close,
    loop_do,
    loop_open,
    loop_run,
)
from umlab.engine._native.news cimport News
from umlab.engine._native.owned cimport Attachment, Registry, Shared, new_key
from umlab.engine._native.queue cimport queue_close, queue_open
from umlab.engine._native.recording cimport OpenCaptures
from umlab.engine._native.ring cimport MOST_FULL_EVENTS, ring_close, ring_open
from umlab.engine._native.step cimport (
    STEP,
    ConfigureOrder,
    FdbOrder,
    FlushOrder,
    PortOrder,
    RestoreOrder,
    SendOrder,
    step_attach,
    step_configure,
    step_copy_fdb,
    step_detach,
    step_flush,
    step_restore,
    step_send,
    step_stop,
)
from umlab.engine._native.system cimport (
    __ATOMIC_RELAXED,
    __ATOMIC_SEQ_CST,
    close,
    eventfd_write,
    load_u32,
    monotonic_ns,
    store_u32,
)
from umlab.engine._native.value cimport mac_bytes, port_counts, switch_counts, vid_of
from umlab.engine.contract import SwitchSnapshot
from umlab.errors import StateError, SwitchError
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import MIN_FRAME


cdef int64_t _machine_now(void *engine) noexcept nogil:
    return monotonic_ns()


cdef int64_t _given_now(void *engine) noexcept with gil:
    return (<NativeEngine>engine)._read_given_clock()


cdef class NativeEngine:
    """A switch in motion, without the GIL; see ``umlab.engine.contract.Engine`` for the calls.

    Args:
        config: What the switch is told to be.
        clock: Where the time comes from.  Any but the machine's is read with the GIL held.

    Raises:
        MemoryError: There is no memory for the tables.
    """

    kind = "native"

    cdef Loop loop
    cdef readonly object config
    cdef object _clock
    cdef object _lock
    cdef object _thread
    cdef bint _running
    cdef object _failure
    cdef Registry _attached
    cdef News _news
    cdef OpenCaptures _captures

    def __cinit__(self, config, clock=None):
        memset(&self.loop, 0, sizeof(self.loop))
        self.loop.epoll_fd = self.loop.wake_fd = self.loop.event_fd = -1
        self.config = config
        self._clock = clock or MonotonicClock()
        self.loop.clock.source = <void *>self
        self.loop.clock.read = _machine_now if type(self._clock) is MonotonicClock else _given_now
        # Control calls come from one thread; if they do not, one waits for the other.
        self._lock = threading.Lock()
        self._attached = Registry()
        self._news = News()
        self._news._loop = &self.loop
        self._captures = OpenCaptures(self._lock, self._attached)
        self._captures._loop = &self.loop
        self.loop.core.quiet_until_ns = NEVER
        self.loop.core.tables = self._attached.new_tables(config)
        if not fdb_open(&self.loop.core.fdb, config.fdb_capacity, new_key()):
            raise MemoryError
        # Beside two events for each port, room for what guests can cause, and what tells of lost ones.
        if not ring_open(&self.loop.core.events, 2 * MOST_FULL_EVENTS):
            raise MemoryError
        if not queue_open(&self.loop.core.punts, MAX_PUNTS):
            raise MemoryError

    def __dealloc__(self):
        if self.loop.epoll_fd >= 0:
            loop_close(&self.loop)
        free(self.loop.core.tables)
        queue_close(&self.loop.core.punts)
        fdb_close(&self.loop.core.fdb)
        ring_close(&self.loop.core.events)

    def start(self, *, held=False):
        """Start the thread, or with ``held`` be ready for everything and move no frame before ``release``.

        Raises:
            StateError: It was started before.
            OSError: There is no descriptor, or no memory, left for it.
        """
        if self._thread is not None:
            raise StateError("this engine was started before")
        if not loop_open(&self.loop):
            loop_close(&self.loop)
            raise OSError("the engine cannot start: no descriptor or no memory is left")
        self._running = True
        self._thread = threading.Thread(target=self._run, name="umlab-engine", daemon=True)
        if not held:
            self.release()

    def release(self):
        """Let frames move after a start that was held."""
        with self._lock:
            start = self._thread.start
            # Set before it runs, as it is the thread that takes it back in the end.
            store_u32(&self.loop.alive, 1, __ATOMIC_SEQ_CST)
            try:
                start()
            except BaseException:
                if self._thread.ident is None:
                    store_u32(&self.loop.alive, 0, __ATOMIC_SEQ_CST)
                raise

    def stop(self):
        """End the thread, drop every port and close every descriptor; a second call does nothing.

        ``event_fd`` is closed too, so stop watching it before; what waited is still to be taken.

        Raises:
            RuntimeError: The thread had died of a bug; everything is closed all the same.
        """
        with self._lock:
            if not self._running:
                return
            self._call(step_stop, NULL)
            self._running = False
            with nogil:
                loop_await_end(&self.loop)
            try:
                if self._thread.ident is not None:
                    self._thread.join()
                self._captures.end_all()
                for port_no in self._attached.numbers():
                    self._remove(port_no)
            finally:
                loop_close(&self.loop)
            self._raise_failure()

    def configure(self, config):
        """Be told something else; no port goes down and no queue is emptied.

        Raises:
            StateError: The engine does not run.
            ValueError: ``first_port_no`` differs, which only a new switch can have.
            MemoryError: There is no memory for larger tables; nothing has changed.
        """
        cdef ConfigureOrder order
        cdef ForwardingTables *old
        cdef Attachment attachment
        with self._lock:
            self._raise_failure()
            self._check_running()
            if config.first_port_no != self.config.first_port_no:
                raise ValueError("first_port_no cannot be changed while the switch runs")
            self._news.drain()
            for attachment in self._attached.by_number.values():
                attachment.enlarge_queue(&self.loop, config.egress_queue_depth)
            old = self.loop.core.tables
            order.tables = self._attached.new_tables(config)
            order.begun = order.failed = False
            order.first = 1 if (config.ports, config.mirrors) != (self.config.ports, self.config.mirrors) else 0
            self._call(step_configure, &order)
            if order.failed:
                free(order.tables)
                raise MemoryError("no memory for so large an FDB")
            free(old)
            self._attached.keep_vids(config)
            self.config = config

    def attach(self, link, port_no=None):
        """Serve a link as a new port and return its number, the lowest free one unless it is given.

        On any error the link's descriptor is still the caller's.

        Raises:
            StateError: The engine does not run.
            SwitchError: The descriptor cannot be served.
        """
        with self._lock:
            self._raise_failure()
            self._check_running()
            if self._attached.has_fd(link.fd):
                raise SwitchError(f"descriptor {link.fd} is attached already")
            sock = open_socket(link)
            unix_datagram = is_unix_datagram(link.framing, sock)
            if sock is not None:
                sock.detach()
            port_no = self._attached.free_number(port_no, self.config.first_port_no)
            try:
                self._admit(port_no, link, unix_datagram, self._attached.shared_receiver(link))
            except (OSError, SwitchError) as error:
                raise SwitchError(f"descriptor {link.fd} cannot be served: {error}") from error
            return port_no

    def detach(self, port_no):
        """Drop a port, its queue, its descriptor and every address learnt on it.

        Raises:
            NoSuchPort: Nothing is attached there.
        """
        with self._lock:
            self._raise_failure()
            self._attached.get(port_no)
            self._news.drain()
            self._remove(port_no)

    def fdb(self):
        """Return the learnt addresses that have not aged, oldest first."""
        cdef Station stations[STEP]
        cdef uint32_t ports[STEP]
        cdef FdbOrder order
        cdef Station *station
        cdef bint more = True
        cdef uint32_t i
        # By address: a station that is forgotten and learnt meanwhile could be met twice.
        found = {}
        with self._lock:
            self._raise_failure()
            order.stations = stations
            order.ports = ports
            order.first = 1
            while more:
                # Meanwhile events come in that are to find room.
                self._news.drain()
                with nogil:
                    more = loop_call(&self.loop, step_copy_fdb, &order)
                for i in range(order.count):
                    station = &stations[i]
                    found[station.mac] = (station.last_seen_ns, station.seen_order, ports[i])
            alive_ns = self._clock.now_ns() - <int64_t>self.loop.core.tables.ageing_ns
        return [
            FdbEntry(mac_bytes(mac), port, seen_ns, vid_of(mac))
            for mac, (seen_ns, _, port) in sorted(found.items(), key=itemgetter(1))
            if seen_ns >= alive_ns
        ]

    def restore_fdb(self, entries):
        """Learn what another engine's ``fdb`` returned, where ports are there and entries alive."""
        cdef RestoreOrder order
        cdef Attachment attachment
        cdef bytes mac
        with self._lock:
            self._raise_failure()
            order.count = 0
            for entry in entries:
                attachment = self._attached.by_number.get(entry.port_no)
                if attachment is None or attachment.port.monitor:
                    continue
                mac = entry.mac
                assert len(mac) == 6
                order.entries[order.count].mac = (
                    load_mac(<const uint8_t *><char *>mac) | <uint64_t>entry.vid << 48
                )
                order.entries[order.count].home = &attachment.port.core.home
                order.entries[order.count].last_seen_ns = entry.last_seen_ns
                order.count += 1
                if order.count == STEP:
                    self._call(step_restore, &order)
                    order.count = 0
            self._call(step_restore, &order)

    def flush_fdb(self, port_no=None):
        """Forget every learnt address, or those of one port, and return how many there were.

        Raises:
            NoSuchPort: Nothing is attached there.
        """
        cdef FlushOrder order
        cdef Attachment attachment
        with self._lock:
            self._raise_failure()
            order.flushed = 0
            for number in self._attached.numbers() if port_no is None else (port_no,):
                attachment = self._attached.get(number)
                order.home = &attachment.port.core.home
                order.begun = False
                self._call(step_flush, &order)
            return order.flushed

    def snapshot(self):
        """Return a copy of all counters and queue lengths, read where they are; no frame waits for it."""
        cdef Attachment attachment
        ports = {}
        queued = {}
        down = []
        with self._lock:
            self._raise_failure()
            with nogil:
                loop_await_burst_end(&self.loop)
            for port_no in self._attached.numbers():
                attachment = self._attached.get(port_no)
                ports[port_no] = port_counts(&attachment.port.core.counters)
                queued[port_no] = load_u32(&attachment.port.queue.count, __ATOMIC_RELAXED)
                if load_u32(&attachment.port.down, __ATOMIC_RELAXED):
                    down.append(port_no)
            return SwitchSnapshot(
                at_ns=self._clock.now_ns(),
                counters=switch_counts(&self.loop.core),
                ports=ports,
                queued=queued,
                down=frozenset(down),
                fdb_entries=load_u32(&self.loop.core.fdb.count, __ATOMIC_RELAXED),
            )

    def event_fd(self):
        """Return a descriptor that is readable while events wait; it belongs to the engine.

        Raises:
            StateError: The engine does not run.
        """
        with self._lock:
            self._raise_failure()
            self._check_running()
            return self.loop.event_fd

    def take_events(self):
        """Return the events since the last call, oldest first, and make ``event_fd`` quiet."""
        with self._lock:
            self._raise_failure()
            return self._news.take_events()

    def take_punts(self):
        """Return the frames for the control protocols since the last call, oldest first."""
        with self._lock:
            self._raise_failure()
            return self._news.take_punts()

    def send(self, port_no, bytes frame not None):
        """Send a frame of our own out of a port.

        Raises:
            NoSuchPort: Nothing is attached there.
            ValueError: It is no frame that the switch would forward.
        """
        cdef SendOrder order
        with self._lock:
            self._raise_failure()
            order.port = self._attached.get(port_no).port
            if not MIN_FRAME <= len(frame) <= PUNT_SIZE:
                raise ValueError(f"a frame of ours has {MIN_FRAME} to {PUNT_SIZE} bytes")
            order.data = <const uint8_t *><char *>frame
            order.length = len(frame)
            self._call(step_send, &order)

    def capture(self, order):
        """Begin to keep frames.

        Raises:
            StateError: The engine does not run, or ``MAX_CAPTURES`` captures are open.
            SwitchError: There is no descriptor left for it.
            MemoryError: There is no memory for it.
        """
        with self._lock:
            self._raise_failure()
            self._check_running()
            return self._captures.begin(order, self)

    def debug_counts(self):
        """Return what is held right now, all 0 after ``stop``."""
        cdef Attachment attachment
        with self._lock:
            self._raise_failure()
            queued = 0
            for attachment in self._attached.by_number.values():
                queued += load_u32(&attachment.port.queue.count, __ATOMIC_RELAXED)
            return {
                "ports": len(self._attached.by_number),
                "descriptors": 3 * self._running + self._attached.descriptors() + len(self._captures),
                "threads": int(self._thread is not None and self._thread.is_alive()),
                "queued_frames": queued,
                "captures": len(self._captures),
            }

    # The thread.

    def _run(self):
        # Only this thread's: it does not push a busy guest off its processor for each frame that the guest
        # sends.  It costs nothing where a processor is free, and makes bursts where none is.
        with suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with nogil:
            loop_run(&self.loop)
        if self._failure is not None:
            eventfd_write(self.loop.event_fd, 1)
            raise self._failure

    cdef int64_t _read_given_clock(self):
        # Called by the thread as well as by control.
        try:
            return self._clock.now_ns()
        except BaseException as error:
            self._failure = error
            self.loop.stopping = True
            return 0

    # Control, with the lock held.

    cdef void _call(self, Step step, void *argument) noexcept:
        """Have every step of a task done; nothing can come in between that raises."""
        with nogil:
            loop_do(&self.loop, step, argument)

    def _raise_failure(self):
        if self._failure is not None:
            raise RuntimeError("the engine's thread died of a bug") from self._failure

    def _check_running(self):
        if not self._running:
            raise StateError("the engine does not run")

    cdef int _admit(self, uint32_t port_no, link, bint unix_datagram, Shared shared) except -1:
        """Make the port and let the engine have it; raises OSError."""
        cdef PortOrder order
        cdef ForwardingTables *old = self.loop.core.tables
        cdef Attachment attachment = Attachment(
            port_no, link, unix_datagram, shared, self.config.egress_queue_depth
        )
        memset(&order, 0, sizeof(order))
        order.port = attachment.port
        order.shared = shared.receiver if shared is not None else NULL
        self._news.drain()
        self._news.make_room(len(self._attached.by_number) + 1)
        # What the engine serves is known here, always: its memory would be freed otherwise.
        self._attached.add(attachment)
        try:
            self._captures.admit(attachment)
            order.tables = self._attached.new_tables(self.config)
        except MemoryError:
            self._attached.pop(port_no)
            raise
        self._call(step_attach, &order)
        if order.error:
            self._attached.pop(port_no)
            free(order.tables)
            raise OSError(order.error, os.strerror(order.error))
        free(old)
        return 0

    def _remove(self, port_no):
        cdef Attachment attachment = self._attached.get(port_no)
        cdef ForwardingTables *old = self.loop.core.tables
        cdef PortOrder order
        memset(&order, 0, sizeof(order))
        order.port = attachment.port
        order.tables = self._attached.new_tables(self.config, leaving=port_no)
        self._call(step_detach, &order)
        free(old)
        self._attached.pop(port_no)
        close(attachment.port.endpoint.fd)
