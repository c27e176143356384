"""What packets of a flow look like (pyverbs.spec).

Every field has a value and a mask, of which the set bits count. A value without a mask is compared whole.
"""

import socket
import sys
from errno import EOPNOTSUPP
from typing import Any, ClassVar, Final

from ffverbs._cint import check_u8, check_u16, check_u32
from ffverbs._native import ffi
from ffverbs.base import PyverbsObject
from ffverbs.libibverbs_enums import (
    IBV_FLOW_SPEC_ETH,
    IBV_FLOW_SPEC_INNER,
    IBV_FLOW_SPEC_IPV4_EXT,
    IBV_FLOW_SPEC_IPV6,
    IBV_FLOW_SPEC_TCP,
    IBV_FLOW_SPEC_UDP,
)
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError

__all__ = ["U32_MASK", "EthSpec", "Ipv4ExtSpec", "Ipv6Spec", "Spec", "TcpUdpSpec"]

U32_MASK: Final = 0xFFFFFFFF
_U16_MASK: Final = 0xFFFF
_U8_MASK: Final = 0xFF
_NAMES: Final = {
    IBV_FLOW_SPEC_ETH: "IBV_FLOW_SPEC_ETH",
    IBV_FLOW_SPEC_IPV4_EXT: "IBV_FLOW_SPEC_IPV4_EXT",
    IBV_FLOW_SPEC_IPV6: "IBV_FLOW_SPEC_IPV6",
    IBV_FLOW_SPEC_TCP: "IBV_FLOW_SPEC_TCP",
    IBV_FLOW_SPEC_UDP: "IBV_FLOW_SPEC_UDP",
}


class Spec(PyverbsObject):
    """Base of the specifications; making one of it raises EOPNOTSUPP."""

    __slots__ = ("_c",)

    _STRUCT = ""
    _TYPE = 0
    # Label, attribute: in the order of the text.
    _ROWS: tuple[tuple[str, str], ...] = ()

    _c: Any

    def __init__(self) -> None:
        raise PyverbsRDMAError(f"Failed to make {type(self).__name__}: this class is abstract", EOPNOTSUPP)

    def _make(self, spec_type: int, is_inner: object) -> None:
        self._c = ffi.new(f"struct {self._STRUCT} *")
        self._c.type = int(spec_type) | (int(IBV_FLOW_SPEC_INNER) if is_inner else 0)
        self._c.size = ffi.sizeof(self._c[0])

    def _put(self, **fields: tuple[Any, Any, Any]) -> None:
        """Set `NAME` and `NAME_mask` from (default mask, value, mask)."""
        for name, (default_mask, val, val_mask) in fields.items():
            value, mask = self._set_val_mask(default_mask, val, val_mask)
            if val is not None:
                setattr(self, name, value)
                setattr(self, f"{name}_mask", mask)

    @property
    def size(self) -> int:
        """Bytes that it takes in a flow."""
        return int(self._c.size)

    def _copy_data(self, ptr: int) -> None:
        """Copy the specification as the engine takes it to the address `ptr`."""
        ffi.memmove(ffi.cast("void *", ptr), self._c, self.size)

    @staticmethod
    def type_to_str(spec_type: int) -> str:
        """Return the names of the type's bits; KeyError for an unknown one."""
        inner = "IBV_FLOW_SPEC_INNER " if spec_type & IBV_FLOW_SPEC_INNER else ""
        return inner + {int(key): name for key, name in _NAMES.items()}[spec_type & ~int(IBV_FLOW_SPEC_INNER)]

    @staticmethod
    def _set_val_mask(default_mask: Any, val: Any = None, val_mask: Any = None) -> tuple[Any, Any]:
        """Return value and mask: nothing counts without a value, all of it without a mask."""
        if val is None:
            return 0, 0
        return val, default_mask if val_mask is None else val_mask

    def __str__(self) -> str:
        lines = [("Spec type", self.type_to_str(self._c.type)), ("Size", self.size)]
        text = "".join(f"{label:<16}: {value!s:<20}\n" for label, value in lines)
        for label, name in self._ROWS:
            value, mask = getattr(self, name), getattr(self, f"{name}_mask")
            text += f"{label:<16}: {value!s:<20} {mask!s:<20}\n"
        return text


def _halves(name: str, get: Any, put: Any, doc: str) -> tuple[property, property]:
    """Properties of a field's value and of its mask."""

    def make(half: str, text: str) -> property:
        def getter(spec: Spec) -> Any:
            return get(getattr(getattr(spec._c, half), name))

        def setter(spec: Spec, val: Any) -> None:
            setattr(getattr(spec._c, half), name, put(val))

        return property(getter, setter, None, text)

    return make("val", doc), make("mask", "Which bits of it count.")


def _mac_text(mac: Any) -> str:
    return ":".join(f"{byte:02x}" for byte in mac) if any(mac) else ""


def _mac_bytes(val: Any) -> list[int]:
    octets = [check_u8(int(part, 16)) for part in val.split(":")]
    if len(octets) != EthSpec.MAC_LEN:
        raise ValueError(f"a MAC address has {EthSpec.MAC_LEN} octets, {val!r} has {len(octets)}")
    return octets


def _be16(val: int) -> int:
    return socket.htons(check_u16(val))


def _be32(val: int) -> int:
    return socket.htonl(check_u32(val))


class EthSpec(Spec):
    """Ethernet addresses (texts like 24:8a:07:a5:28:c8, "" = all zero), type and VLAN tag."""

    __slots__ = ()
    MAC_LEN = 6
    MAC_MASK = "ff:ff:ff:ff:ff:ff"
    ZERO_MAC: ClassVar[list[int]] = [0] * 6
    _STRUCT = "ffv_flow_spec_eth"
    _ROWS = (("Src mac", "src_mac"), ("Dst mac", "dst_mac"), ("Ether type", "ether_type"), ("Vlan tag", "vlan_tag"))

    def __init__(
        self,
        dst_mac: str | None = None,
        dst_mac_mask: str | None = None,
        src_mac: str | None = None,
        src_mac_mask: str | None = None,
        ether_type: int | None = None,
        ether_type_mask: int | None = None,
        vlan_tag: int | None = None,
        vlan_tag_mask: int | None = None,
        is_inner: int = 0,
    ) -> None:
        self._make(IBV_FLOW_SPEC_ETH, is_inner)
        self._put(
            dst_mac=(self.MAC_MASK, dst_mac, dst_mac_mask),
            src_mac=(self.MAC_MASK, src_mac, src_mac_mask),
            ether_type=(_U16_MASK, ether_type, ether_type_mask),
            vlan_tag=(_U16_MASK, vlan_tag, vlan_tag_mask),
        )

    def _set_mac(self, val: str) -> list[int]:
        """Return the octets of a MAC address' text."""
        return _mac_bytes(val)

    dst_mac, dst_mac_mask = _halves("dst_mac", _mac_text, _mac_bytes, "Destination address.")
    src_mac, src_mac_mask = _halves("src_mac", _mac_text, _mac_bytes, "Source address.")
    ether_type, ether_type_mask = _halves("ether_type_be", socket.ntohs, _be16, "Type of what is in the frame.")
    vlan_tag, vlan_tag_mask = _halves("vlan_tag_be", socket.ntohs, _be16, "Priority (3 bits), CFI (1), VLAN (12).")


def _ip_text(raw: int) -> str:
    return socket.inet_ntoa(int(raw).to_bytes(4, sys.byteorder))


def _ip_raw(val: str) -> int:
    return int.from_bytes(socket.inet_aton(val), sys.byteorder)


class Ipv4ExtSpec(Spec):
    """IPv4 header fields; addresses are texts."""

    __slots__ = ()
    _STRUCT = "ffv_flow_spec_ipv4_ext"
    _ROWS = (
        ("Src IP", "src_ip"),
        ("Dst IP", "dst_ip"),
        ("Proto", "proto"),
        ("ToS", "tos"),
        ("TTL", "ttl"),
        ("Flags", "flags"),
    )

    def __init__(
        self,
        dst_ip: str | None = None,
        dst_ip_mask: str | None = None,
        src_ip: str | None = None,
        src_ip_mask: str | None = None,
        proto: int | None = None,
        proto_mask: int | None = None,
        tos: int | None = None,
        tos_mask: int | None = None,
        ttl: int | None = None,
        ttl_mask: int | None = None,
        flags: int | None = None,
        flags_mask: int | None = None,
        is_inner: object = False,
    ) -> None:
        self._make(IBV_FLOW_SPEC_IPV4_EXT, is_inner)
        whole = _ip_text(U32_MASK)
        self._put(
            dst_ip=(whole, dst_ip, dst_ip_mask),
            src_ip=(whole, src_ip, src_ip_mask),
            proto=(_U8_MASK, proto, proto_mask),
            tos=(_U8_MASK, tos, tos_mask),
            ttl=(_U8_MASK, ttl, ttl_mask),
            flags=(_U8_MASK, flags, flags_mask),
        )

    @staticmethod
    def _str_to_ip(ip_str: str) -> int:
        """Return the address as it stands in a packet, read as one number of this machine."""
        return _ip_raw(ip_str)

    @staticmethod
    def _ip_to_str(ip: int) -> str:
        return _ip_text(check_u32(ip))

    dst_ip, dst_ip_mask = _halves("dst_ip_be", _ip_text, _ip_raw, "Destination address.")
    src_ip, src_ip_mask = _halves("src_ip_be", _ip_text, _ip_raw, "Source address.")
    proto, proto_mask = _halves("proto", int, check_u8, "Protocol in the packet.")
    tos, tos_mask = _halves("tos", int, check_u8, "Type of service.")
    ttl, ttl_mask = _halves("ttl", int, check_u8, "Time to live.")
    flags, flags_mask = _halves("flags", int, check_u8, "2 = don't fragment, 4 = more fragments.")


def _ip6_text(raw: Any) -> str:
    return socket.inet_ntop(socket.AF_INET6, bytes(raw))


def _ip6_bytes(val: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, val)


class Ipv6Spec(Spec):
    """IPv6 header fields; addresses are texts."""

    __slots__ = ()
    EMPTY_IPV6 = "::"
    IPV6_MASK = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    FLOW_LABEL_MASK = 0xFFFFF
    _STRUCT = "ffv_flow_spec_ipv6"
    _ROWS = (
        ("Src IP", "src_ip"),
        ("Dst IP", "dst_ip"),
        ("Flow label", "flow_label"),
        ("Next header", "next_hdr"),
        ("Traffic class", "traffic_class"),
        ("Hop limit", "hop_limit"),
    )

    def __init__(
        self,
        dst_ip: str | None = None,
        dst_ip_mask: str | None = None,
        src_ip: str | None = None,
        src_ip_mask: str | None = None,
        flow_label: int | None = None,
        flow_label_mask: int | None = None,
        next_hdr: int | None = None,
        next_hdr_mask: int | None = None,
        traffic_class: int | None = None,
        traffic_class_mask: int | None = None,
        hop_limit: int | None = None,
        hop_limit_mask: int | None = None,
        is_inner: object = False,
    ) -> None:
        self._make(IBV_FLOW_SPEC_IPV6, is_inner)
        self._put(
            dst_ip=(self.IPV6_MASK, dst_ip, dst_ip_mask),
            src_ip=(self.IPV6_MASK, src_ip, src_ip_mask),
            flow_label=(self.FLOW_LABEL_MASK, flow_label, flow_label_mask),
            next_hdr=(_U8_MASK, next_hdr, next_hdr_mask),
            traffic_class=(_U8_MASK, traffic_class, traffic_class_mask),
            hop_limit=(_U8_MASK, hop_limit, hop_limit_mask),
        )

    dst_ip, dst_ip_mask = _halves("dst_ip", _ip6_text, _ip6_bytes, "Destination address.")
    src_ip, src_ip_mask = _halves("src_ip", _ip6_text, _ip6_bytes, "Source address.")
    flow_label, flow_label_mask = _halves("flow_label_be", socket.ntohl, _be32, "Flow label, 20 bits.")
    next_hdr, next_hdr_mask = _halves("next_hdr", int, check_u8, "Header behind this one.")
    traffic_class, traffic_class_mask = _halves("traffic_class", int, check_u8, "Traffic class.")
    hop_limit, hop_limit_mask = _halves("hop_limit", int, check_u8, "Hop limit.")


class TcpUdpSpec(Spec):
    """TCP or UDP ports: `spec_type` says of which."""

    __slots__ = ()
    _STRUCT = "ffv_flow_spec_tcp_udp"
    _ROWS = (("Src port", "src_port"), ("Dst port", "dst_port"))

    def __init__(
        self,
        spec_type: int,
        dst_port: int | None = None,
        dst_port_mask: int | None = None,
        src_port: int | None = None,
        src_port_mask: int | None = None,
        is_inner: object = False,
    ) -> None:
        if spec_type not in (IBV_FLOW_SPEC_TCP, IBV_FLOW_SPEC_UDP):
            raise PyverbsError("Spec type must be IBV_FLOW_SPEC_TCP or IBV_FLOW_SPEC_UDP")
        self._make(spec_type, is_inner)
        self._put(
            dst_port=(_U16_MASK, dst_port, dst_port_mask),
            src_port=(_U16_MASK, src_port, src_port_mask),
        )

    dst_port, dst_port_mask = _halves("dst_port_be", socket.ntohs, _be16, "Destination port.")
    src_port, src_port_mask = _halves("src_port_be", socket.ntohs, _be16, "Source port.")
