"""What the numbers in device and port attributes mean, in pyverbs' words (the functions of pyverbs.device)."""

from collections.abc import Mapping
from typing import Final

from ffverbs._text import names_of, str_from_flags
from ffverbs.libibverbs_enums import ibv_device_cap_flags, ibv_event_type, ibv_port_cap_flags, ibv_port_cap_flags2
from ffverbs.utils import be64toh

__all__ = [
    "guid_format",
    "guid_to_hex",
    "phys_state_to_str",
    "port_state_to_str",
    "speed_to_str",
    "translate_device_caps",
    "translate_event_type",
    "translate_gid_type",
    "translate_link_layer",
    "translate_mtu",
    "translate_node_type",
    "translate_port_cap_flags",
    "translate_port_cap_flags2",
    "translate_transport_type",
    "width_to_str",
]

_TRANSPORT_TYPES: Final[Mapping[int, str]] = {0: "IB", 1: "IWARP", 2: "USNIC", 3: "USNIC UDP"}
_NODE_TYPES: Final[Mapping[int, str]] = {1: "CA", 2: "Switch", 3: "Router", 4: "RNIC", 5: "USNIC", 6: "USNIC UDP"}
_GID_TYPES: Final[Mapping[int, str]] = {0: "IB", 1: "RoCEv1", 2: "RoCEv2"}
_PORT_STATES: Final[Mapping[int, str]] = {0: "NOP", 1: "Down", 2: "Init", 3: "Armed", 4: "Active", 5: "Defer"}
_MTUS: Final[Mapping[int, int]] = {1: 256, 2: 512, 3: 1024, 4: 2048, 5: 4096}
_LINK_LAYERS: Final[Mapping[int, str]] = {0: "Unspecified", 1: "InfiniBand", 2: "Ethernet"}
_WIDTHS: Final[Mapping[int, str]] = {1: "1X", 2: "4X", 4: "8X", 8: "12X", 16: "2X"}
# Gbit/s of one lane. 256 (NDR's code) and above are codes of the extended field.
_SPEEDS: Final[Mapping[int, str]] = {
    0: "0.0",
    1: "2.5",
    2: "5.0",
    4: "5.0",
    8: "10.0",
    16: "14.0",
    32: "25.0",
    64: "50.0",
    128: "100.0",
    256: "200.0",
}
_PHYS_STATES: Final[Mapping[int, str]] = {
    1: "Sleep",
    2: "Polling",
    3: "Disabled",
    4: "Port configuration training",
    5: "Link up",
    6: "Link error recovery",
    7: "Phy test",
}
_EVENT_TYPES: Final[Mapping[int, str]] = names_of(ibv_event_type)
_PORT_CAPS: Final[Mapping[int, str]] = names_of(ibv_port_cap_flags)
_PORT_CAPS2: Final[Mapping[int, str]] = names_of(ibv_port_cap_flags2)
_DEVICE_CAPS: Final[Mapping[int, str]] = names_of(ibv_device_cap_flags)


def guid_format(num: int) -> str:
    """Return a GUID, given as its raw network-order word, as four groups of four hex digits."""
    digits = f"{be64toh(num):016x}"
    return ":".join(digits[i : i + 4] for i in range(0, 16, 4))


def guid_to_hex(node_guid: int) -> str:
    """Return the number in hex without a prefix."""
    return f"{node_guid:x}"


def translate_transport_type(transport_type: int) -> str:
    """Return the name of an ibv_transport_type."""
    return _TRANSPORT_TYPES.get(transport_type, "Unknown")


def translate_node_type(node_type: int) -> str:
    """Return the name of an ibv_node_type."""
    return _NODE_TYPES.get(node_type, "Unknown")


def translate_gid_type(gid_type: int) -> str:
    """Return the name of an ibv_gid_type."""
    return _GID_TYPES.get(gid_type, f"Unknown gid_type ({gid_type})")


def translate_event_type(event_type: int) -> str:
    """Return the name of an ibv_event_type."""
    return _EVENT_TYPES.get(event_type, f"Unknown event_type ({event_type})")


def port_state_to_str(port_state: int) -> str:
    """Return the name and number of an ibv_port_state."""
    return _with_number(_PORT_STATES, port_state, f"Invalid state ({port_state})")


def translate_mtu(mtu: int) -> str:
    """Return the bytes and number of an ibv_mtu."""
    return _with_number(_MTUS, mtu, f"Invalid MTU ({mtu})")


def translate_link_layer(ll: int) -> str:
    """Return the name of a link layer."""
    return _LINK_LAYERS.get(ll, f"Invalid link layer ({ll})")


def phys_state_to_str(phys: int) -> str:
    """Return the name and number of a port's physical state."""
    return _with_number(_PHYS_STATES, phys, "Invalid physical state")


def width_to_str(width: int) -> str:
    """Return the lanes and number of a port's active width."""
    return _with_number(_WIDTHS, width, "Invalid width")


def speed_to_str(active_speed: int, active_speed_ex: int = 0) -> str:
    """Return the speed of one lane in Gbit/s and its number; the extended field counts if it is set."""
    speed = active_speed_ex or active_speed
    return f"{_SPEEDS[speed]} Gbps ({speed})" if speed in _SPEEDS else "Invalid speed"


def translate_port_cap_flags(flags: int) -> str:
    """Return the names of a port's capability flags, one a line."""
    return str_from_flags(flags, _PORT_CAPS)


def translate_port_cap_flags2(flags: int) -> str:
    """Return the names of a port's second set of capability flags, one a line."""
    return str_from_flags(flags, _PORT_CAPS2)


def translate_device_caps(flags: int) -> str:
    """Return the names of a device's capability flags, one a line."""
    return str_from_flags(flags, _DEVICE_CAPS)


def _with_number(names: Mapping[int, object], number: int, otherwise: str) -> str:
    return f"{names[number]} ({number})" if number in names else otherwise
