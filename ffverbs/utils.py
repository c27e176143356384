"""Texts of GIDs and of the values that verbs objects print, as pyverbs writes them."""

import re
import struct
from typing import Final

import ffverbs.libibverbs_enums as e
from ffverbs.pyverbs_error import PyverbsUserError

_GID_TEXT: Final = re.compile(r"[0-9a-fA-F]{4}(:[0-9a-fA-F]{4}){7}")

_QP_TYPES: Final[dict[int, str]] = {
    e.IBV_QPT_RC: "RC",
    e.IBV_QPT_UC: "UC",
    e.IBV_QPT_UD: "UD",
    e.IBV_QPT_RAW_PACKET: "Raw Packet",
    e.IBV_QPT_XRC_SEND: "XRCD_SEND",
    e.IBV_QPT_XRC_RECV: "XRCD_RECV",
    e.IBV_QPT_DRIVER: "Driver QP",
}
_QP_STATES: Final[dict[int, str]] = {
    e.IBV_QPS_RESET: "Reset",
    e.IBV_QPS_INIT: "Init",
    e.IBV_QPS_RTR: "RTR",
    e.IBV_QPS_RTS: "RTS",
    e.IBV_QPS_SQD: "SQD",
    e.IBV_QPS_SQE: "SQE",
    e.IBV_QPS_ERR: "Error",
    e.IBV_QPS_UNKNOWN: "Unknown",
}
_MTU_BYTES: Final[dict[int, int]] = {
    e.IBV_MTU_256: 256,
    e.IBV_MTU_512: 512,
    e.IBV_MTU_1024: 1024,
    e.IBV_MTU_2048: 2048,
    e.IBV_MTU_4096: 4096,
}
# The flags that pyverbs has texts for, in its order.
_ACCESS_FLAGS: Final[dict[int, str]] = {
    e.IBV_ACCESS_LOCAL_WRITE: "Local write",
    e.IBV_ACCESS_REMOTE_WRITE: "Remote write",
    e.IBV_ACCESS_REMOTE_READ: "Remote read",
    e.IBV_ACCESS_REMOTE_ATOMIC: "Remote atomic",
    e.IBV_ACCESS_MW_BIND: "MW bind",
    e.IBV_ACCESS_ZERO_BASED: "Zero based",
    e.IBV_ACCESS_ON_DEMAND: "On demand",
}
_MIG_STATES: Final[dict[int, str]] = {
    e.IBV_MIG_MIGRATED: "Migrated",
    e.IBV_MIG_REARM: "Re-arm",
    e.IBV_MIG_ARMED: "Armed",
}
_REREG_ERRORS: Final[dict[int, str]] = {int(member): member.name or "" for member in e.ibv_rereg_mr_err_code}


def be64toh(num: int) -> int:
    """Return the number whose big-endian bytes are those of `num` in the machine's order (and the reverse)."""
    (swapped,) = struct.unpack("Q", struct.pack("!Q", num))
    return int(swapped)


def gid_str(subnet_prefix: int, interface_id: int) -> str:
    """Return a GID's text, eight groups of four hex digits, from its two words in network byte order."""
    digits = f"{be64toh(subnet_prefix):016x}{be64toh(interface_id):016x}"
    return ":".join(digits[i : i + 4] for i in range(0, 32, 4))


def gid_str_to_array(val: str) -> list[str]:
    """Return the 16 bytes of a GID as two hex digits each; PyverbsUserError unless `val` has eight groups of four."""
    if not _GID_TEXT.fullmatch(val):
        raise PyverbsUserError(f"Invalid GID value ({val})")
    digits = val.replace(":", "")
    return [digits[i : i + 2] for i in range(0, 32, 2)]


def qp_type_to_str(qp_type: int) -> str:
    """Return the text of an `ibv_qp_type`."""
    return _QP_TYPES.get(qp_type, f"Unknown ({qp_type})")


def qp_state_to_str(qp_state: int) -> str:
    """Return the text of an `ibv_qp_state`."""
    return _QP_STATES.get(qp_state, f"Unknown ({qp_state})")


def mtu_to_str(mtu: int) -> int:
    """Return the bytes of an `ibv_mtu`, as an int in spite of the name; 0 if it is unknown."""
    return _MTU_BYTES.get(mtu, 0)


def access_flags_to_str(flags: int) -> str:
    """Return the texts of all `ibv_access_flags` in `flags`, each followed by a blank."""
    return "".join(f"{text} " for flag, text in _ACCESS_FLAGS.items() if flags & flag)


def mig_state_to_str(mig: int) -> str:
    """Return the text of an `ibv_mig_state`."""
    return _MIG_STATES.get(mig, f"Unknown ({mig})")


def rereg_error_to_str(error: int) -> str:
    """Return the name of an `ibv_rereg_mr_err_code`."""
    return _REREG_ERRORS.get(error, f"Unknown error ({error})")
