"""The Python engine: one thread, one epoll, system calls that never wait; defines what engines do.

Two locks order the frame loop and the control calls.  ``_lock`` guards everything below and is held
for one descriptor's burst or one control call at a time.  ``_turn`` is taken before it and released
once ``_lock`` is held: so a control call waits for one burst at most, however busy the loop is.

Descriptors are unregistered before they are closed, always: a duplicate in another process would keep
a closed one in the epoll set, where nothing could take it out again.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from umlab._clock import Clock, MonotonicClock
from umlab.engine._descriptor import address_key, open_socket
from umlab.engine._pycapture import OpenCaptures, PyCapture
from umlab.engine._pyegress import Egress
from umlab.engine._pyframing import BURST
from umlab.engine._pyport import Port, SharedReceiver
from umlab.engine.contract import CaptureOrder, SwitchSnapshot
from umlab.errors import NoSuchPort, StateError, SwitchError
from umlab.switch.core import PUNT_SIZE, Punt, SwitchCore
from umlab.switch.counters import DropReason
from umlab.switch.events import Event
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import MIN_FRAME, Framing, Link, SwitchConfig
from umlab.wire.pcapng import INBOUND

_READY_AT_ONCE = 256
_BROKEN = select.EPOLLHUP | select.EPOLLERR
#: Seconds that one wait lasts at most: epoll's milliseconds are an int, and a timer may lie years ahead.
_LONGEST_WAIT = 3600.0


class PyEngine:
    """A switch in motion, in plain Python; see ``umlab.engine.contract.Engine`` for the calls.

    Args:
        config: What the switch is told to be.
        clock: Where the time comes from.
    """

    kind = "py"

    def __init__(self, config: SwitchConfig, clock: Clock | None = None) -> None:
        self.config = config
        self._clock = clock or MonotonicClock()
        self._core = SwitchCore(config)
        self._read_size = config.max_frame + 1  # a longer frame is seen to be so
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running = False
        self._failure: BaseException | None = None
        self._ports: dict[int, Port] = {}
        self._port_by_fd: dict[int, Port] = {}
        self._shared: dict[int, SharedReceiver] = {}
        self._shared_by_own_fd: dict[int, SharedReceiver] = {}
        # Grows with each attach and detach: what epoll said before may be about another file by now.
        self._epoch = 0
        self._event_signalled = False
        # How many punts the reader of the events knows of: one that takes none is told of each once.
        self._punts_told = 0
        self._captures = OpenCaptures()
        self._epoll: select.epoll
        self._egress: Egress
        self._wake_fd = self._event_fd = -1

    def start(self, *, held: bool = False) -> None:
        """Start the thread, or with ``held`` be ready for everything and move no frame before ``release``.

        Raises:
            StateError: It was started before.
        """
        if self._thread is not None:
            raise StateError("this engine was started before")
        self._epoll = select.epoll()
        self._egress = Egress(self._epoll, self._captures, self._clock, self.config.egress_queue_depth)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._running = True
        self._thread = threading.Thread(target=self._run, name="umlab-engine", daemon=True)
        if not held:
            self.release()

    def release(self) -> None:
        """Let frames move after a start that was held."""
        assert self._thread is not None
        self._thread.start()

    def stop(self) -> None:
        """End the thread, drop every port and close every descriptor; a second call does nothing.

        ``event_fd`` is closed too, so stop watching it before; what waited is still to be taken.

        Raises:
            RuntimeError: The thread had died of a bug; everything is closed all the same.
        """
        if self._thread is None:
            return
        with self._turn, self._lock:
            was_running, self._running = self._running, False
        if not was_running:
            return
        os.eventfd_write(self._wake_fd, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for port_no in list(self._ports):
            self._remove(port_no)
        self._captures.end()
        self._epoll.close()
        os.close(self._wake_fd)
        os.close(self._event_fd)
        self._raise_failure()

    def configure(self, config: SwitchConfig) -> None:
        """Be told something else; no port goes down and no queue is emptied.

        Raises:
            StateError: The engine does not run.
            ValueError: ``first_port_no`` differs, which only a new switch can have.
        """
        with self._control():
            if not self._running:
                raise StateError("the engine does not run")
            self._core.configure(config)
            self.config = config
            self._egress.depth = config.egress_queue_depth
            self._read_size = config.max_frame + 1
            for shared in self._shared.values():
                shared.read_size = self._read_size
            # Stations may age sooner than the loop waits for.
            os.eventfd_write(self._wake_fd, 1)

    def attach(self, link: Link, port_no: int | None = None) -> int:
        """Serve a link as a new port and return its number, the lowest free one unless it is given.

        On any error the link's descriptor is still the caller's.

        Raises:
            StateError: The engine does not run.
            SwitchError: The descriptor cannot be served.
        """
        with self._control():
            if not self._running:
                raise StateError("the engine does not run")
            if link.fd in self._port_by_fd:
                raise SwitchError(f"descriptor {link.fd} is attached already")
            port = Port(link, open_socket(link))
            try:
                self._watch(port, link)
            except (OSError, SwitchError) as error:
                port.release()
                raise SwitchError(f"descriptor {link.fd} cannot be served: {error}") from error
            try:
                port.port_no = self._core.add_port(self._clock.now_ns(), port_no, monitor=link.monitor)
            except SwitchError:
                self._unwatch(port)
                port.release()
                raise
            port.counters = self._core.port_counters(port.port_no)
            self._ports[port.port_no] = self._port_by_fd[port.fd] = port
            self._captures.admit(port.port_no)
            self._epoch += 1
            return port.port_no

    def detach(self, port_no: int) -> None:
        """Drop a port, its queue, its descriptor and every address learnt on it.

        Raises:
            NoSuchPort: Nothing is attached there.
        """
        with self._control():
            if port_no not in self._ports:
                raise NoSuchPort(port_no)
            self._remove(port_no)

    def fdb(self) -> list[FdbEntry]:
        """Return the learnt addresses that have not aged, oldest first."""
        with self._control():
            return self._core.fdb(self._clock.now_ns())

    def restore_fdb(self, entries: Iterable[FdbEntry]) -> None:
        """Learn what another engine's ``fdb`` returned, where ports are there and entries alive."""
        with self._control():
            self._core.restore(entries, self._clock.now_ns())

    def flush_fdb(self, port_no: int | None = None) -> int:
        """Forget every learnt address, or those of one port, and return how many there were.

        Raises:
            NoSuchPort: Nothing is attached there.
        """
        with self._control():
            return self._core.flush(port_no)

    def snapshot(self) -> SwitchSnapshot:
        """Return a copy of all counters and queue lengths."""
        with self._control():
            core = self._core
            return SwitchSnapshot(
                at_ns=self._clock.now_ns(),
                counters=core.counters.copy(),
                ports={number: core.port_counters(number).copy() for number in core.ports()},
                queued={number: len(self._ports[number].queue) for number in core.ports()},
                down=frozenset(number for number, port in self._ports.items() if port.is_down),
                fdb_entries=core.fdb_size(),
            )

    def event_fd(self) -> int:
        """Return a descriptor that is readable while events wait; it belongs to the engine.

        Raises:
            StateError: The engine does not run.
        """
        with self._control():
            if not self._running:
                raise StateError("the engine does not run")
            return self._event_fd

    def take_events(self) -> list[Event]:
        """Return the events since the last call, oldest first, and make ``event_fd`` quiet."""
        with self._control():
            if self._event_signalled and self._running:
                os.eventfd_read(self._event_fd)
            self._event_signalled = False
            self._punts_told = self._core.counters.punted
            return self._core.take_events()

    def take_punts(self) -> list[Punt]:
        """Return the frames for the control protocols since the last call, oldest first."""
        with self._control():
            return self._core.take_punts()

    def send(self, port_no: int, frame: bytes) -> None:
        """Send a frame of our own out of a port.

        Raises:
            NoSuchPort: Nothing is attached there.
            ValueError: It is no frame that the switch would forward.
        """
        with self._control():
            if port_no not in self._ports:
                raise NoSuchPort(port_no)
            if not MIN_FRAME <= len(frame) <= PUNT_SIZE:
                raise ValueError(f"a frame of ours has {MIN_FRAME} to {PUNT_SIZE} bytes")
            self._egress.send(self._ports[port_no], frame)

    def capture(self, order: CaptureOrder) -> PyCapture:
        """Begin to keep frames.

        Raises:
            StateError: The engine does not run, or ``MAX_CAPTURES`` captures are open.
            SwitchError: There is no descriptor left for it.
        """
        with self._control():
            if not self._running:
                raise StateError("the engine does not run")
            return self._captures.open(order, self._core.ports(), self._forget_capture)

    def debug_counts(self) -> dict[str, int]:
        """Return what is held right now, all 0 after ``stop``."""
        with self._control():
            return {
                "ports": len(self._ports),
                "descriptors": 3 * self._running
                + len(self._port_by_fd)
                + len(self._shared)
                + len(self._captures.all),
                "threads": int(self._thread is not None and self._thread.is_alive()),
                "queued_frames": sum(len(port.queue) for port in self._ports.values()),
                "captures": len(self._captures.all),
            }

    @contextmanager
    def _control(self) -> Iterator[None]:
        """Hold the engine still for one control call, and report its events."""
        with self._turn:
            self._lock.acquire()
        try:
            self._raise_failure()
            yield
            self._signal_events()
        finally:
            self._lock.release()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RuntimeError("the engine's thread died of a bug") from self._failure

    def _signal_events(self) -> None:
        if self._event_signalled or not self._running:
            return
        if self._core.events_waiting() or self._core.counters.punted > self._punts_told:
            self._event_signalled = True
            os.eventfd_write(self._event_fd, 1)

    def _forget_capture(self, capture: PyCapture) -> None:
        # Not a control call: an engine that has failed lets go of its captures too.
        with self._turn, self._lock:
            self._captures.forget(capture)

    # Ports.  All of these run with the lock held, or when the thread has ended.

    def _watch(self, port: Port, link: Link) -> None:
        if (link.rx_shared_fd is None) != (link.rx_address is None):
            raise SwitchError("a shared receiver and an address go together")
        if link.rx_shared_fd is None or link.rx_address is None:
            port.mask = 0 if port.monitor else select.EPOLLIN
            self._epoll.register(port.fd, port.mask)
            return
        self._epoll.register(port.fd, port.mask)
        try:
            self._join_shared(port, link.rx_shared_fd, address_key(link.rx_address))
        except (OSError, SwitchError):
            self._epoll.unregister(port.fd)
            raise

    def _unwatch(self, port: Port) -> None:
        if port.shared is not None:
            self._leave_shared(port, port.shared)
        if not port.closed:
            self._epoll.unregister(port.fd)

    def _join_shared(self, port: Port, shared_fd: int, address: bytes) -> None:
        shared = self._shared.get(shared_fd)
        if shared is None:
            shared = SharedReceiver(shared_fd, self._read_size)
            try:
                self._epoll.register(shared.fd, select.EPOLLIN)
            except OSError:
                shared.close()
                raise
            self._shared[shared_fd] = self._shared_by_own_fd[shared.fd] = shared
        elif address in shared.ports:
            raise SwitchError("another port has this address")
        shared.ports[address] = port
        port.shared, port.rx_address = shared, address

    def _leave_shared(self, port: Port, shared: SharedReceiver) -> None:
        del shared.ports[port.rx_address]
        if not shared.ports:
            if not shared.closed:
                self._epoll.unregister(shared.fd)
            del self._shared[shared.key], self._shared_by_own_fd[shared.fd]
            shared.close()

    def _remove(self, port_no: int) -> None:
        port = self._ports.pop(port_no)
        del self._port_by_fd[port.fd]
        self._unwatch(port)
        port.close()
        self._core.remove_port(port_no, self._clock.now_ns())
        self._epoch += 1

    def _close_link(self, port: Port, error_number: int) -> None:
        """Serve a port's descriptor no more; the port stays, and its frames are dropped."""
        port.closed = True
        self._epoll.unregister(port.fd)
        self._egress.purge(port)
        self._core.link_closed(port.port_no, error_number, self._clock.now_ns())

    # The frame loop.

    def _run(self) -> None:
        try:
            while self._serve_once():
                pass
        except BaseException as error:
            with self._lock:
                self._failure = error
                os.eventfd_write(self._event_fd, 1)
            raise

    def _serve_once(self) -> bool:
        epoch = self._epoch
        for fd, mask in self._epoll.poll(self._poll_timeout(), _READY_AT_ONCE):
            with self._turn:
                self._lock.acquire()
            try:
                if not self._running:
                    return False
                if epoch != self._epoch:
                    return True
                self._serve(fd, mask)
                self._signal_events()
            finally:
                self._lock.release()
        return True

    def _poll_timeout(self) -> float | None:
        """Return how long nothing needs to be done, in seconds, after doing what the timer asks."""
        with self._turn:
            self._lock.acquire()
        try:
            at_ns = self._core.get_timer()
            if at_ns is None:
                return None
            now_ns = self._clock.now_ns()
            if at_ns > now_ns:
                return min((at_ns - now_ns) / 1e9, _LONGEST_WAIT)
            self._core.handle_timer(now_ns)
            self._signal_events()
            return 0
        finally:
            self._lock.release()

    def _serve(self, fd: int, mask: int) -> None:
        if fd == self._wake_fd:
            os.eventfd_read(fd)
            return
        port = self._port_by_fd.get(fd)
        if port is None:
            serve = self._close_shared if mask & _BROKEN else self._receive_shared
            serve(self._shared_by_own_fd[fd])
            return
        if port.closed:  # by something earlier in what epoll said at once
            return
        if mask & select.EPOLLOUT:
            self._egress.drain(port)
        if mask & ~select.EPOLLOUT:
            # A device that is in error stays so; a socket's error is gone when it is read.
            final = _BROKEN if port.framing is Framing.DEVICE else select.EPOLLHUP
            if port.mask & select.EPOLLIN:
                self._receive(port, bool(mask & final))
            else:
                self._mend(port, bool(mask & final))

    def _receive(self, port: Port, hung_up: bool) -> None:
        """Forward one burst; after a hang-up, close the link once nothing is left to read."""
        wire, size, now_ns = port.wire, self._read_size, self._clock.now_ns()
        for _ in wire.turns():
            try:
                message = wire.read(size)
            except BlockingIOError:
                port.read_worked()
                if hung_up:
                    self._close_link(port, port.errno)
                return
            except OSError as error:
                if not port.survives(error):
                    self._close_link(port, error.errno or errno.EIO)
                    return
                continue
            if message is None:
                return
            if not message and (hung_up or port.has_end):
                self._close_link(port, port.errno)
                return
            port.read_worked()
            frame = wire.frame_of(message, size)
            if frame is None:
                port.counters.count_drop(DropReason.BAD_HEADER)
                if self._captures.all:
                    self._captures.note(port.port_no, message, now_ns, INBOUND, DropReason.BAD_HEADER)
                continue
            self._forward(port, frame, now_ns)

    def _receive_shared(self, shared: SharedReceiver) -> None:
        now_ns = self._clock.now_ns()
        for _ in range(BURST):
            try:
                frame, address = shared.read()
            except OSError:
                return
            port = shared.port_of(address)
            if port is None:
                self._core.counters.unknown_sender += 1
                continue
            self._forward(port, frame, now_ns)

    def _close_shared(self, shared: SharedReceiver) -> None:
        """Serve a shared receiver no more that its transport has shut down, nor the ports behind it."""
        shared.closed = True
        self._epoll.unregister(shared.fd)
        for port in sorted(shared.ports.values(), key=lambda port: port.port_no):
            if not port.closed:
                self._close_link(port, 0)

    def _mend(self, port: Port, hung_up: bool) -> None:
        """Take the error off a descriptor that is never read, lest epoll report it for ever."""
        error_number = port.take_error()
        if hung_up:
            self._close_link(port, error_number)

    def _forward(self, port: Port, frame: bytes, now_ns: int) -> None:
        verdict = self._core.receive(port.port_no, frame, now_ns)
        if self._captures.all:
            self._captures.note(port.port_no, frame, now_ns, INBOUND, verdict.drop)
        send = self._egress.send
        for egress in verdict.egress:
            send(self._ports[egress], verdict.changed.get(egress, frame))
