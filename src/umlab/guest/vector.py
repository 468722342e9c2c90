"""NICs of UML's vector drivers, ``vecN:transport=bess,dst=PATH,...``: a list of assignments, checked.

Source: Linux arch/um/drivers/vector_user.c, vector_transports.c and vector_kern.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from umlab.errors import LabError
from umlab.guest.cmdline import check_mac, check_mtu, check_path, check_socket

#: The kernel's table of assignments has so many places, and it does not look whether there is one left.
_MAX_OPTIONS = 20
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19}")

_COMMON = ("mac", "mtu", "depth", "headroom", "gro", "vec", "bpffile", "bpfflash")
_TUNNEL = ("src", "dst", "v6")
#: What each transport takes, and what of it must be there.
_KNOWN: dict[str, tuple[str, ...]] = {
    "bess": ("dst", "src"),
    "fd": ("fd",),
    "l2tpv3": (
        *(*_TUNNEL, "udp", "srcport", "dstport", "rx_session", "tx_session", "rx_cookie", "tx_cookie"),
        *("cookie64", "counter", "pin_counter"),
    ),
    "gre": (*_TUNNEL, "rx_key", "tx_key", "sequence", "pin_sequence"),
    "tap": ("ifname", "ifup"),
    "raw": ("ifname", "ifup"),
    "hybrid": ("ifname", "ifup"),
    "vde": ("vnl", "descr", "port", "mode", "group"),
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "bess": ("dst",),
    "fd": ("fd",),
    "l2tpv3": ("dst", "rx_session", "tx_session"),
    "gre": ("dst",),
    "raw": ("ifname",),
    "hybrid": ("ifname",),
    "vde": ("vnl",),
}
#: What is text; all others are numbers.
_TEXTS = frozenset(
    {"mac", "src", "dst", "ifname", "ifup", "bpffile", "vnl", "descr", "port", "mode", "group"}
    | {"srcport", "dstport"}
)
#: What the kernel's own documentation calls otherwise than its code.
_RIGHT_NAMES = {"src_port": "srcport", "dst_port": "dstport"}


@dataclass(frozen=True, slots=True)
class VectorNic:
    """A NIC of the vector drivers.

    Attributes:
        transport: Such as ``bess`` or ``l2tpv3``.
        options: All other assignments, in order.
    """

    transport: str
    options: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> VectorNic:
        """Return the NIC of a setting.

        Raises:
            LabError: The kernel would not take it as it is meant; says what is wrong.
        """
        values: dict[str, str] = {}
        for part in text.split(","):
            key, sign, value = part.partition("=")
            if not (key and sign and value):
                raise LabError(f"{part[:64]!r} is not of the form KEY=VALUE")
            if "=" in value:
                raise LabError(f"the value of {key[:64]} has a second '=', which the kernel refuses")
            if key in values:
                raise LabError(f"{key[:64]} is there twice")
            values[key] = value
        if len(values) > _MAX_OPTIONS:
            raise LabError(f"{len(values)} assignments, the kernel has room for {_MAX_OPTIONS}")
        transport = values.pop("transport", None)
        if transport is None:
            raise LabError(f"transport= is missing; there are {', '.join(_KNOWN)}")
        nic = cls(transport, tuple(values.items()))
        nic._check()
        return nic

    @property
    def text(self) -> str:
        """The setting's text."""
        return ",".join(f"{key}={value}" for key, value in (("transport", self.transport), *self.options))

    def get(self, key: str) -> str | None:
        """Return an option's value, ``None`` where it is not given."""
        return dict(self.options).get(key)

    @property
    def mac(self) -> str | None:
        """Its address, ``None`` where the kernel takes a random one."""
        return self.get("mac")

    def _check(self) -> None:
        known = _KNOWN.get(self.transport)
        if known is None:
            raise LabError(f"there is no transport {self.transport[:64]!r}; there are {', '.join(_KNOWN)}")
        for key, value in self.options:
            if key not in (*known, *_COMMON):
                right = _RIGHT_NAMES.get(key)
                hint = f"the kernel calls it {right}" if right in known else f"it takes {', '.join(known)}"
                raise LabError(f"{self.transport} has no option {key[:64]!r}; {hint}")
            if key not in _TEXTS and not _NUMBER.fullmatch(value):
                raise LabError(f"{key} {value[:64]!r} is not a number")
        for key in _NEEDED.get(self.transport, ()):
            if self.get(key) is None:
                raise LabError(f"{self.transport} needs {key}=")
        if self.mac is not None:
            check_mac(self.mac)
        mtu = self.get("mtu")
        if mtu is not None:
            # The kernel reads this one as decimal only.
            check_mtu(int(mtu) if mtu.isdecimal() else 0)
        self._check_paths()

    def _check_paths(self) -> None:
        if self.transport == "bess":
            for key in ("dst", "src"):
                if (path := self.get(key)) is not None:
                    check_socket(key, path, ",=")
        for key in ("bpffile", "ifup"):
            if (path := self.get(key)) is not None:
                check_path(key, path, ",=")
