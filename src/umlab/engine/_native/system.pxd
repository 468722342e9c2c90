"""What the native engine asks of Linux and of the compiler, declared as their headers have it."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef extern from * nogil:
    # The compiler's atomic built-ins, by the type that each is used for.
    int __ATOMIC_RELAXED, __ATOMIC_ACQUIRE, __ATOMIC_RELEASE, __ATOMIC_SEQ_CST
    uint32_t load_u32 "__atomic_load_n"(uint32_t *where, int order)
    void store_u32 "__atomic_store_n"(uint32_t *where, uint32_t value, int order)
    uint32_t exchange_u32 "__atomic_exchange_n"(uint32_t *where, uint32_t value, int order)
    uint64_t load_u64 "__atomic_load_n"(uint64_t *where, int order)
    void store_u64 "__atomic_store_n"(uint64_t *where, uint64_t value, int order)
    uint64_t add_u64 "__atomic_fetch_add"(uint64_t *where, uint64_t value, int order)
    uint64_t exchange_u64 "__atomic_exchange_n"(uint64_t *where, uint64_t value, int order)
    void *load_pointer "__atomic_load_n"(void **where, int order)
    void store_pointer "__atomic_store_n"(void **where, void *value, int order)
    void *exchange_pointer "__atomic_exchange_n"(void **where, void *value, int order)
    void prefetch "__builtin_prefetch"(const void *where)

cdef extern from "<sys/mman.h>" nogil:
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MREMAP_MAYMOVE
    void *MAP_FAILED
    void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)
    void *mremap(void *address, size_t old_size, size_t new_size, int flags)
    int munmap(void *address, size_t length)

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t readv(int fd, const iovec *vector, int count)
    ssize_t writev(int fd, const iovec *vector, int count)

cdef extern from "<sys/un.h>" nogil:
    cdef struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_NOSIGNAL, SOL_SOCKET, SO_ERROR, SOL_PACKET
    cdef struct msghdr:
        void *msg_name
        uint32_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
    cdef struct cmsghdr:
        int cmsg_level
        int cmsg_type
    cdef struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    cmsghdr *CMSG_NXTHDR(msghdr *message, cmsghdr *control)
    unsigned char *CMSG_DATA(cmsghdr *control)
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int recvmmsg(int fd, mmsghdr *messages, unsigned int count, int flags, void *timeout)
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags)
    int getsockopt(int fd, int level, int name, void *value, uint32_t *size)

cdef extern from "<linux/if_packet.h>" nogil:
    int PACKET_AUXDATA, TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID
    cdef struct tpacket_auxdata:
        uint32_t tp_status
        uint16_t tp_vlan_tci
        uint16_t tp_vlan_tpid

cdef extern from "<sys/epoll.h>" nogil:
    int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        void *ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epoll_fd, int operation, int fd, epoll_event *event)
    int epoll_wait(int epoll_fd, epoll_event *events, int count, int timeout_ms)

cdef extern from "<sys/eventfd.h>" nogil:
    int EFD_NONBLOCK, EFD_CLOEXEC
    int eventfd(unsigned int start, int flags)
    int eventfd_write(int fd, uint64_t value)
    int eventfd_read(int fd, uint64_t *value)

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass
    int sem_init(sem_t *semaphore, int shared, unsigned int value)
    int sem_destroy(sem_t *semaphore)
    int sem_post(sem_t *semaphore)
    int sem_wait(sem_t *semaphore)

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *data, size_t size)
    int close(int fd)

cdef extern from "<time.h>" nogil:
    int CLOCK_MONOTONIC
    cdef struct timespec:
        int64_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)
    int nanosleep(const timespec *span, timespec *left)


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000_000 + now.tv_nsec
