"""Settings of ports and mirror sessions, drawn at random."""

from __future__ import annotations

from hypothesis import strategies as st

from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import CTAG, MAX_VID, STAG, PortVlan, VidSet

VIDS = st.integers(1, MAX_VID)
VID_SETS = st.builds(VidSet.of, st.frozensets(VIDS | st.integers(1, 12), max_size=8))
PORT_NOS = st.integers(1, 65_535) | st.integers(1, 12)


@st.composite
def vlans(draw: st.DrawFn) -> PortVlan:
    """Draw what a port does with tags."""
    tpid = draw(st.sampled_from([CTAG, STAG]))
    if draw(st.booleans()):
        return PortVlan.access(draw(VIDS), tpid)
    tagged, untagged = draw(VID_SETS), draw(VID_SETS)
    untagged -= tagged
    members = tagged | untagged
    if not members:
        return PortVlan.trunk(VidSet.of([draw(VIDS)]), None, tpid)
    return PortVlan(draw(st.sampled_from([None, *members])), tagged, untagged, tpid)


PORTS = st.builds(PortConfig, st.none() | vlans(), st.sampled_from(ReservedPolicy))


@st.composite
def mirrors(draw: st.DrawFn, name: str = "tap") -> MirrorSession:
    """Draw a mirror session."""
    destination = draw(PORT_NOS)
    ports = draw(st.frozensets(PORT_NOS, max_size=4)) - {destination}
    vids = draw(VID_SETS)
    if not ports and not vids:
        vids = VidSet.of([1])
    ways = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
    return MirrorSession(name, destination, ports, vids, *ways)


CONFIGS = st.builds(
    SwitchConfig,
    hub=st.booleans(),
    ports=st.dictionaries(PORT_NOS, PORTS.filter(lambda port: port != PortConfig()), max_size=5),
    mirrors=st.tuples() | st.tuples(mirrors()),
)
