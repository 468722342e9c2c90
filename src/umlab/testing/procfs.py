"""The files of a simulated kernel's ``/proc``: those that it serves, and those that it refuses.

The texts are those of a Debian 6.1 kernel with 128 MiB and one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Content", "Facts", "exists", "files"]

Content = str | Callable[[], str]

NEEDS_PROCESS = {"bus/input/devices", "exitcode", "kallsyms", "modules", "slabinfo", "swaps"}
"""Files that exist and cannot be read over the console."""

PROCESS_DIRECTORIES = {"1", "driver", "fs", "irq", "net", "self", "sysvipc", "thread-self"}
"""Directories of which that is true for all in them that is not one of the `files`."""


@dataclass
class Facts:
    """What the files say about the kernel.

    Attributes:
        nodename: The host name.
        release: Such as ``6.1.176``.
        build: The kernel's ``version`` of uname, such as ``#1 Sat Jul  4 15:38:16 UTC 2026``.
        command_line: The kernel's.
        memory: Bytes that the kernel manages.
        memory_free: Bytes of them that are free.
        load: The three load averages.
        console_level: Messages of a lower number go to the console.
        requests: How many interrupts the console has had.
        uptime: Returns the seconds since the boot.
        boot_id: The boot's UUID.
    """

    nodename: str
    release: str
    build: str
    command_line: str
    memory: int
    memory_free: int
    load: tuple[float, float, float]
    console_level: int
    requests: int
    uptime: Callable[[], float]
    boot_id: str


def files(facts: Facts) -> dict[str, Content]:
    """Return path below ``/proc`` to content, or to what makes it at the time of a request."""
    return {
        "version": lambda: _VERSION % (facts.release, facts.build),
        "uptime": lambda: f"{facts.uptime():.2f} {facts.uptime() * 0.9:.2f}\n",
        "loadavg": lambda: "{:.2f} {:.2f} {:.2f} 1/38 736\n".format(*facts.load),
        "meminfo": lambda: _meminfo(facts),
        "stat": lambda: _stat(facts),
        "interrupts": lambda: _interrupts(facts),
        "cpuinfo": _CPUINFO,
        "cmdline": lambda: f"{facts.command_line}\n",
        "mounts": _MOUNTS,
        "self/mounts": _MOUNTS,
        "1/mounts": _MOUNTS,
        "filesystems": "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevtmpfs\n\text4\nnodev\thostfs\n",
        "devices": _DEVICES,
        "consoles": "tty0                 -W- (EC p a)    4:0\nmc-1                 -W- (E     )\n",
        "softirqs": _SOFTIRQS,
        "vmstat": _VMSTAT,
        "zoneinfo": _ZONEINFO,
        "partitions": "",
        "diskstats": "",
        "sys/kernel/printk": lambda: f"{facts.console_level}\t4\t1\t7\n",
        "sys/kernel/ostype": "Linux\n",
        "sys/kernel/osrelease": lambda: f"{facts.release}\n",
        "sys/kernel/version": lambda: f"{facts.build}\n",
        "sys/kernel/hostname": lambda: f"{facts.nodename}\n",
        "sys/kernel/random/boot_id": lambda: f"{facts.boot_id}\n",
        "sys/kernel/panic": "0\n",
        "sys/kernel/tainted": "0\n",
        "sys/kernel/pid_max": "32768\n",
        "sys/net/ipv4/ip_forward": "0\n",
    }


def exists(path: str, served: Iterable[str]) -> bool:
    """Return whether a path that is not served is one of a file or directory all the same."""
    known = {*served, *NEEDS_PROCESS, *PROCESS_DIRECTORIES}
    return (
        path in NEEDS_PROCESS
        or path.partition("/")[0] in PROCESS_DIRECTORIES
        or any(name.startswith(f"{path}/" if path else "") for name in known)
    )


def _meminfo(facts: Facts) -> str:
    total, free = facts.memory // 1024, facts.memory_free // 1024
    amounts = {"MemTotal": total, "MemFree": free, "MemAvailable": free * 98 // 100, **_MEMINFO}
    return "".join(f"{name + ':':15} {amount:8} kB\n" for name, amount in amounts.items())


def _stat(facts: Facts) -> str:
    ticks = int(facts.uptime() * 100)
    cpu = f"{ticks // 10} 0 {ticks // 20} {ticks - ticks // 10 - ticks // 20} 0 0 0 0 0 0"
    numbers = ["0"] * 64
    numbers[0], numbers[2], numbers[5], numbers[10] = str(ticks), "3", str(facts.requests), "1"
    switches = 3575 + 2 * facts.requests
    return (
        f"cpu  {cpu}\ncpu0 {cpu}\nintr {ticks + facts.requests + 4} {' '.join(numbers)}\nctxt {switches}\n"
        "btime 1795685404\nprocesses 736\nprocs_running 1\nprocs_blocked 0\n"
        "softirq 2194 0 19 0 0 0 0 0 0 0 2175\n"
    )


def _interrupts(facts: Facts) -> str:
    counts = [
        (0, int(facts.uptime() * 100), "SIGALRM      hr timer"),
        (2, 3, "  SIGIO      ubd"),
        (5, facts.requests, "  SIGIO      mconsole"),
        (7, 0, "  SIGIO      write sigio"),
        (10, 1, "  SIGIO      random"),
        (19, 0, "  SIGIO      console-write"),
        (20, 0, "  SIGIO      console"),
    ]
    return "           CPU0       \n" + "".join(
        f"{at:3}: {count:10}   {what}\n" for at, count, what in counts
    )


_VERSION = (
    "Linux version %s (buildd@x86-grnet-03) (gcc (Debian 12.2.0-14+deb12u1) 12.2.0, "
    "GNU ld (GNU Binutils for Debian) 2.40) %s\n"
)
_MEMINFO = {
    **{"Buffers": 0, "Cached": 1960, "SwapCached": 0, "Active": 4, "Inactive": 100, "Active(anon)": 4},
    **{"Inactive(anon)": 100, "Active(file)": 0, "Inactive(file)": 0, "Unevictable": 1960, "Mlocked": 0},
    **{"SwapTotal": 0, "SwapFree": 0, "Zswap": 0, "Zswapped": 0, "Dirty": 0, "Writeback": 0},
    **{"AnonPages": 104, "Mapped": 1600, "Shmem": 0, "KReclaimable": 400, "Slab": 10012},
    **{"SReclaimable": 400, "SUnreclaim": 9612, "KernelStack": 608, "PageTables": 44, "SecPageTables": 0},
    **{"NFS_Unstable": 0, "Bounce": 0, "WritebackTmp": 0, "CommitLimit": 56660, "Committed_AS": 672},
    **{"VmallocTotal": 533856240, "VmallocUsed": 900, "VmallocChunk": 0, "Percpu": 32},
}
_FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss ht "
    "syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl cpuid pni pclmulqdq ssse3 fma "
    "cx16 sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm cmp_legacy abm "
    "sse4a misalignsse 3dnowprefetch osvw fsgsbase tsc_adjust bmi1 avx2 smep bmi2 erms invpcid rdseed adx "
    "clflushopt clwb sha_ni xsaveopt xsavec xgetbv1 xsaves clzero arat umip vaes vpclmulqdq rdpid"
)
_CPUINFO = (
    "processor\t: 0\nvendor_id\t: User Mode Linux\nmodel name\t: UML\nmode\t\t: skas\n"
    "host\t\t: Linux host 6.1.0 #1 SMP x86_64\nfpu\t\t: yes\n"
    f"flags\t\t: {_FLAGS}\ncache_alignment\t: 64\nbogomips\t: 2872.11\n\n"
)
_MOUNTS = (
    "rootfs / rootfs rw 0 0\nproc /proc proc rw,relatime 0 0\nsys /sys sysfs rw,relatime 0 0\n"
    "dev /dev devtmpfs rw,relatime,size=55696k,nr_inodes=13924,mode=755 0 0\n"
)
_DEVICES = (
    "Character devices:\n  1 mem\n  4 tty\n  4 ttyS\n  5 /dev/console\n136 pts\n\n"
    "Block devices:\n 98 ubd\n259 blkext\n"
)
_SOFTIRQS = "                    CPU0       \n" + "".join(
    f"{name:>12}: {count:10}\n"
    for name, count in {
        **{"HI": 0, "TIMER": 19, "NET_TX": 0, "NET_RX": 0, "BLOCK": 0, "IRQ_POLL": 0, "TASKLET": 0},
        **{"SCHED": 0, "HRTIMER": 0, "RCU": 2175},
    }.items()
)
_VMSTAT = (
    "nr_free_pages 24531\nnr_zone_inactive_anon 25\nnr_zone_active_anon 1\nnr_mapped 400\nnr_dirty 0\n"
    "pgpgin 1\npgpgout 0\npswpin 0\npswpout 0\npgfault 1322\npgmajfault 0\n"
)
_ZONEINFO = (
    "Node 0, zone   Normal\n  per-node stats\n      nr_inactive_anon 25\n      nr_active_anon 1\n"
    "  pages free     24531\n        boost    0\n        min      333\n        low      416\n"
    "        high     499\n        spanned  98121\n        present  98121\n        managed  28331\n"
)
