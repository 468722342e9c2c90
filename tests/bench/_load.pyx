# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Makes frames, sends them to a switch, counts what arrives: one thread, without the GIL, in batches.

Sending and receiving alternate in one loop.  A guest's socket holds 11 frames, so a receiver must be emptied
again before the switch has sent twelve: a batch is shorter than that.  Unless it is told to, the loop never
sleeps, so the switch wakes nobody up.
"""

from libc.errno cimport EAGAIN, ENOBUFS, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, clockid_t, nanosleep, timespec

import os
from array import array

from cpython cimport array as carray

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int MSG_DONTWAIT, MSG_WAITFORONE
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags)
    int recvmmsg(int fd, mmsghdr *messages, unsigned int count, int flags, timespec *timeout)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
    enum:
        POLLIN
        POLLOUT
    int poll(pollfd *fds, unsigned long count, int timeout)

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_TIMERSLACK
    int prctl(int option, unsigned long value)

cdef enum:
    SEND_BATCH = 8
    RECEIVE_BATCH = 32
    BUFFER = 2048
    #: Where a frame carries the time at which it was due, behind the header and 2 bytes that align it;
    #: behind a tag, so much later.
    STAMP_AT = 16
    TAG_SIZE = 4
    #: Frames that wait for the socket at most, as in a guest's own queue; more are lost.
    WAITING = 1000
    # A turn takes some ten microseconds.
    AWAY_NS = 500000
    #: Sockets that a sleeping run watches at most, and how long it sleeps at most.
    WATCHED = 16
    SLEEP_MS = 10
    #: How long a sleeping stream with a pace sleeps until more is due.
    NAP_NS = 20 * 1000
    #: Frames of a window that have not arrived after that time will not.
    PATIENCE_NS = 5 * 1000 * 1000
    #: Nothing has arrived for so long after the end: nothing comes any more.
    QUIET_NS = 50 * 1000 * 1000

cdef struct stream_t:
    int fd
    int size
    int stamp_at
    double period_ns      # 0: as fast as the socket takes them
    uint32_t sources      # 0: a random one for every frame
    uint64_t random
    int64_t window        # frames under way at most; 0: any number
    int64_t written_off   # frames that are under way no more, nobody knows where
    int64_t offered, sent, dropped
    uint8_t *frames       # SEND_BATCH frames of ``size`` bytes
    iovec vectors[SEND_BATCH]
    mmsghdr messages[SEND_BATCH]

cdef struct run_t:
    stream_t **streams
    int *receivers
    int64_t *received     # by receiver, in the window and after it
    int stream_count, receiver_count
    int64_t begin         # of the run
    int64_t start         # the same, later by the time that this loop was away
    int64_t progress_at
    int64_t arrived       # at all receivers
    int64_t *samples      # nanoseconds from due to arrival
    int64_t sample_count, sample_room
    int64_t longest_gap
    int error             # errno of what ended the run, or 0
    bint idle             # nothing was sent or received in this turn
    int watched           # 0: the run does not sleep
    bint blocks           # sleeps in the system call itself, with its time-out
    bint naps             # sleeps until more is due
    pollfd watch[WATCHED]
    iovec vectors[RECEIVE_BATCH]
    mmsghdr messages[RECEIVE_BATCH]
    uint8_t buffers[RECEIVE_BATCH][BUFFER]


cdef class Stream:
    """Frames from one socket to one address.

    Args:
        fd: A datagram socket that is connected to the switch.
        destination: Address of 6 bytes.
        source: Address of 6 bytes; its last 4 change when there are several.
        size: Bytes of a frame, 28 at least.
        rate: Frames per second, whatever becomes of them; 0 is as fast as the socket takes them.
        sources: How many source addresses take turns; 0 is a random one for every frame.
        window: Frames under way at most, as a stream that waits for answers has it; 0 is any number.
        tag: A tag of TPID 8100, or nothing.
    """

    cdef stream_t c

    def __cinit__(
        self, int fd, bytes destination, bytes source, int size=64, double rate=0, uint32_t sources=1, int64_t window=0,
        bytes tag=b""
    ):
        cdef int index
        assert len(destination) == len(source) == 6 and 28 <= size <= BUFFER and rate >= 0
        assert len(tag) in (0, TAG_SIZE)
        self.c.fd, self.c.size, self.c.sources = fd, size, sources
        self.c.window = window
        self.c.period_ns = 1e9 / rate if rate else 0
        self.c.random = int.from_bytes(os.urandom(8), "little") | 1
        self.c.frames = <uint8_t *> calloc(SEND_BATCH, size)
        if self.c.frames == NULL:
            raise MemoryError
        self.c.stamp_at = STAMP_AT + len(tag)
        head = destination + source + tag + b"\x88\xb5"
        cdef const uint8_t *start = head
        for index in range(SEND_BATCH):
            memcpy(self.c.frames + index * size, start, len(head))
            self.c.vectors[index].iov_base = self.c.frames + index * size
            self.c.vectors[index].iov_len = size
            self.c.messages[index].msg_hdr.msg_iov = &self.c.vectors[index]
            self.c.messages[index].msg_hdr.msg_iovlen = 1

    def __dealloc__(self):
        free(self.c.frames)

    @property
    def offered(self):
        """Frames that were due in the last run."""
        return self.c.offered

    @property
    def sent(self):
        """Frames that the socket took in the last run."""
        return self.c.sent


def run(list streams, list receivers, double seconds, *, int pid=0, bint latency=False, bint sleep=False, tick=None, double every=0):
    """Send and receive for a while, then wait for what is still under way.

    Args:
        streams: What is sent.
        receivers: Descriptors of the sockets that are read.
        seconds: How long to send.
        pid: The switch's, whose processor time is measured.
        latency: Whether to take the time of every frame.
        sleep: Whether to sleep while the sockets take nothing and have nothing, as guests do.  A run with one
            socket sleeps in it, if that blocks; it should have a time-out.
        tick: Called again and again meanwhile.
        every: Seconds between two of its calls.

    Returns:
        ``received`` by each receiver in all, ``arrived`` at all of them while frames were sent, ``seconds``,
        ``cpu`` seconds of the process meanwhile, ``latencies`` (sorted, nanoseconds), ``gap``: the longest
        time in nanoseconds that this loop was away.

    Raises:
        OSError: The switch takes no more frames for good.
    """
    cdef run_t *job = <run_t *> calloc(1, sizeof(run_t))
    cdef carray.array samples = array("q", bytes(8 * ((1 << 20) if latency else 1)))
    cdef carray.array fds = array("i", receivers or [-1])
    cdef carray.array received = array("q", bytes(8 * max(1, len(receivers))))
    cdef int64_t end, next_tick, now, arrived, ticking = <int64_t> (every * 1e9)
    cdef int64_t cpu = 0
    cdef int index
    if job == NULL:
        raise MemoryError
    try:
        job.streams = <stream_t **> calloc(max(1, len(streams)), sizeof(stream_t *))
        if job.streams == NULL:
            raise MemoryError
        for index, stream in enumerate(streams):
            job.streams[index] = &(<Stream?> stream).c
            job.streams[index].offered = job.streams[index].sent = job.streams[index].dropped = 0
            job.streams[index].written_off = 0
        job.stream_count, job.receiver_count = len(streams), len(receivers)
        job.receivers, job.received = fds.data.as_ints, <int64_t *> received.data.as_longlongs
        job.samples, job.sample_room = <int64_t *> samples.data.as_longlongs, len(samples) if latency else 0
        for index in range(RECEIVE_BATCH):
            job.vectors[index].iov_base = job.buffers[index]
            job.vectors[index].iov_len = BUFFER
            job.messages[index].msg_hdr.msg_iov = &job.vectors[index]
            job.messages[index].msg_hdr.msg_iovlen = 1
        if sleep:
            watch(job)
        cpu = cpu_ns(pid) if pid else 0
        job.begin = job.start = job.progress_at = now = now_ns()
        end = job.start + <int64_t> (seconds * 1e9)
        while now < end:
            next_tick = min(end, now + ticking) if tick is not None else end
            with nogil:
                now = send_and_receive(job, next_tick)
            if job.error:
                raise OSError(job.error, os.strerror(job.error))
            if tick is not None:
                tick()
        cpu = cpu_ns(pid) - cpu if pid else 0
        arrived = job.arrived
        with nogil:
            receive_rest(job)
        return {
            "received": list(received[: len(receivers)]),
            "arrived": arrived,
            "seconds": (now - job.start) / 1e9,
            "cpu": cpu / 1e9,
            "latencies": sorted(samples[: job.sample_count]),
            "gap": job.longest_gap,
        }
    finally:
        free(job.streams)
        free(job)


cdef int64_t now_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <int64_t> time.tv_sec * 1000000000 + time.tv_nsec


cdef int64_t cpu_ns(int pid) except -1:
    """Read the clock of a process, as clock_getcpuclockid(3) makes it."""
    cdef timespec time
    if clock_gettime(<clockid_t> (~pid << 3 | 2), &time):
        raise ProcessLookupError(errno, os.strerror(errno))
    return <int64_t> time.tv_sec * 1000000000 + time.tv_nsec


cdef watch(run_t *job):
    """Name the sockets that end its sleep; a stream with a pace goes by the time, and has its run for itself."""
    cdef int index
    assert job.stream_count + job.receiver_count <= WATCHED
    job.blocks = job.stream_count + job.receiver_count == 1
    for index in range(job.stream_count):
        if job.streams[index].period_ns:
            assert job.stream_count + job.receiver_count == 1
            job.naps = True
            prctl(PR_SET_TIMERSLACK, 1)
            return
        # One that waits for an answer has nothing to send before it comes.
        if job.streams[index].window:
            continue
        job.watch[job.watched].fd, job.watch[job.watched].events = job.streams[index].fd, POLLOUT
        job.watched += 1
    for index in range(job.receiver_count):
        job.watch[job.watched].fd, job.watch[job.watched].events = job.receivers[index], POLLIN
        job.watched += 1


cdef int64_t send_and_receive(run_t *job, int64_t end) noexcept nogil:
    """Go on until ``end``; return the time."""
    cdef int64_t now = now_ns(), then
    cdef timespec nap
    cdef int index
    nap.tv_sec, nap.tv_nsec = 0, NAP_NS
    while now < end and not job.error:
        job.idle = True
        for index in range(job.stream_count):
            send_due(job, job.streams[index], now)
        receive(job)
        if job.idle and job.watched and not job.blocks:
            poll(job.watch, job.watched, SLEEP_MS)
        elif job.idle and job.naps:
            nanosleep(&nap, NULL)
        then, now = now, now_ns()
        if now - then > job.longest_gap:
            job.longest_gap = now - then
        if now - then > AWAY_NS and not job.blocks and not job.watched and not job.naps:
            # Kept from running, though it never sleeps: what it did not do meanwhile is nobody's fault.
            job.start += now - then
    return now


cdef void send_due(run_t *job, stream_t *stream, int64_t now) noexcept nogil:
    """Offer the socket what is due, at most a batch."""
    cdef int64_t behind, under_way, due = now
    cdef int count = SEND_BATCH, index, done
    cdef uint8_t *frame
    cdef uint32_t serial
    if stream.period_ns:
        stream.offered = <int64_t> ((now - job.start) / stream.period_ns) + 1
        behind = stream.offered - stream.sent - stream.dropped
        if behind > WAITING:
            stream.dropped += behind - WAITING
            behind = WAITING
        if behind < count:
            count = <int> behind
    if stream.window:
        under_way = stream.sent - stream.written_off - job.arrived
        if under_way and now - job.progress_at > PATIENCE_NS:
            stream.written_off += under_way
            under_way = 0
        if stream.window - under_way < count:
            count = <int> max(stream.window - under_way, 0)
    for index in range(count):
        frame = stream.frames + index * stream.size
        serial = <uint32_t> (stream.sent + index)
        if stream.sources != 1:
            serial = serial % stream.sources if stream.sources else next_random(stream)
            # Big-endian, so that neighbours differ in the last byte.
            frame[8], frame[9], frame[10], frame[11] = serial >> 24, serial >> 16, serial >> 8, serial
        if stream.period_ns:
            due = job.start + <int64_t> ((stream.sent + stream.dropped + index) * stream.period_ns)
        memcpy(frame + stream.stamp_at, &due, 8)
    if count == 0:
        return
    done = sendmmsg(stream.fd, stream.messages, count, 0 if job.blocks else MSG_DONTWAIT)
    if done > 0:
        stream.sent += done
        job.idle = False
    elif errno != EAGAIN and errno != ENOBUFS:
        job.error = errno
    if not stream.period_ns:
        stream.offered = stream.sent


cdef uint32_t next_random(stream_t *stream) noexcept nogil:
    stream.random ^= stream.random << 13
    stream.random ^= stream.random >> 7
    stream.random ^= stream.random << 17
    return <uint32_t> (stream.random >> 32)


cdef void receive(run_t *job) noexcept nogil:
    """Empty every receiver."""
    cdef int index, each, count, flags = MSG_WAITFORONE if job.blocks else MSG_DONTWAIT
    cdef int64_t now, due
    cdef uint8_t *frame
    for index in range(job.receiver_count):
        count = RECEIVE_BATCH
        while count == RECEIVE_BATCH:
            count = recvmmsg(job.receivers[index], job.messages, RECEIVE_BATCH, flags, NULL)
            if count <= 0:
                break
            job.idle = False
            now = job.progress_at = now_ns()
            for each in range(count):
                frame = job.buffers[each]
                memcpy(&due, frame + STAMP_AT + (TAG_SIZE if frame[12] == 0x81 and frame[13] == 0 else 0), 8)
                # A frame of an earlier run that was long under way.
                if due < job.begin:
                    continue
                job.received[index] += 1
                job.arrived += 1
                if job.sample_count < job.sample_room:
                    job.samples[job.sample_count] = now - due
                    job.sample_count += 1


cdef void receive_rest(run_t *job) noexcept nogil:
    """Receive until it has been quiet for a while."""
    cdef int64_t before, quiet_at = now_ns() + QUIET_NS
    while now_ns() < quiet_at:
        before = job.arrived
        receive(job)
        if job.arrived != before:
            quiet_at = now_ns() + QUIET_NS
