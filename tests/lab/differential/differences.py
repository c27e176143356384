"""What ffverbs and Soft-RoCE (Linux 6.1, rdma-core 44) are known to do differently, and which text ffverbs follows.

docs/differences.md is the same list for people; a test holds the two together. A sequence whose first difference is
one of these is explained; what comes after it in the sequence is not compared, for the two have parted by then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.lab.differential.calls import ADD, FENCE, INLINE, READ, RTS, SEND_INV, SQD, SQE, SWAP, Call
from tests.lab.differential.compare import Difference

SUCCESS, LENGTH, OPERATION, PROTECTION, FLUSHED = 0, 1, 2, 4, 5
REMOTE_INVALID, REMOTE_ACCESS_ERROR, REMOTE_OPERATION, RETRY_EXCEEDED = 9, 10, 11, 12
EINVAL, ENOMEM, EBUSY, ENOSPC = 22, 12, 16, 28
WITH_INV = 8
REQUEST_EVENT, ACCESS_EVENT, DRAINED_EVENT, LAST_WQE_EVENT = 2, 3, 5, 16


@dataclass(frozen=True)
class Known:
    """One known difference."""

    name: str
    follows: str  # what ffverbs follows
    matches: Callable[[Difference, Call], bool]


def statuses(difference: Difference) -> tuple[int | None, int | None]:
    """Return the statuses of the two completions, None for one that is not there."""
    if difference.kind not in ("completion", "missing", "extra"):
        return None, None
    ours, theirs = difference.ours or {}, difference.theirs or {}
    return ours.get("status"), theirs.get("status")


def is_receive(difference: Difference) -> bool:
    """Tell whether it is about completions of receives."""
    return difference.what.endswith(".r")


def work_requests(difference: Difference) -> list[Call]:
    """Return the sends of its call."""
    found: list[Call] = difference.call.get("wrs", [])
    return [wr for wr in found if "opcode" in wr]


def refused(result: Any) -> int | None:
    """Return the error code of a refused post."""
    return result[0][1] if isinstance(result, list) and result and isinstance(result[0], list) else None


def error_code(result: Any) -> int | None:
    """Return the error code of a call that failed."""
    return result[1] if isinstance(result, list) and len(result) == 2 and isinstance(result[0], str) else None


def unflushed(difference: Difference, sequence: Call) -> bool:
    return is_receive(difference) and statuses(difference) == (FLUSHED, None)


def protection(difference: Difference, sequence: Call) -> bool:
    return statuses(difference) == (PROTECTION, OPERATION)


def short_receive(difference: Difference, sequence: Call) -> bool:
    # The requester hears of it, or of an error of the responder's own.
    expected = (LENGTH, OPERATION) if is_receive(difference) else (REMOTE_INVALID, REMOTE_OPERATION)
    return statuses(difference) == expected


def refused_write(difference: Difference, sequence: Call) -> bool:
    return is_receive(difference) and statuses(difference) == (FLUSHED, REMOTE_ACCESS_ERROR)


def bad_opcode(difference: Difference, sequence: Call) -> bool:
    if difference.kind != "result" or difference.what != "send":
        return False
    return refused(difference.ours) is not None and refused(difference.theirs) is None


def bad_inline(difference: Difference, sequence: Call) -> bool:
    wrong = any(wr["flags"] & INLINE and wr["opcode"] in (READ, SWAP, ADD) for wr in work_requests(difference))
    return bad_opcode(difference, sequence) and wrong


def atomic_length(difference: Difference, sequence: Call) -> bool:
    wrong = [wr for wr in work_requests(difference) if wr["opcode"] in (SWAP, ADD)]
    wrong = [wr for wr in wrong if sum(entry[2] for entry in wr["sg"]) != 8]
    if not wrong:
        return False
    return statuses(difference)[0] == LENGTH or refused(difference.theirs) == EINVAL


def refused_invalidation(difference: Difference, sequence: Call) -> bool:
    if not any(wr["opcode"] == SEND_INV for call in sequence["calls"] for wr in call.get("wrs", ()) if "opcode" in wr):
        return False
    return statuses(difference) in ((REMOTE_ACCESS_ERROR, 0), (OPERATION, REMOTE_INVALID))


def window_bounds(difference: Difference, sequence: Call) -> bool:
    by_window = any(wr.get("remote", [""])[0].startswith("mw") for wr in work_requests(difference))
    return by_window and statuses(difference) == (REMOTE_ACCESS_ERROR, 0)


def invalidated_flag(difference: Difference, sequence: Call) -> bool:
    if statuses(difference) != (0, 0):
        return False
    return bool(difference.ours.get("flags") == WITH_INV and difference.theirs.get("flags") == 0)


def two_mistakes(difference: Difference, sequence: Call) -> bool:
    ours, theirs = difference.ours, difference.theirs
    if difference.kind != "result" or refused(ours) != EINVAL or refused(theirs) != ENOMEM:
        return False
    return bool(ours[1] == theirs[1])


def refused_batch(difference: Difference, sequence: Call) -> bool:
    if difference.what != "send" or refused(difference.theirs) != ENOSPC:
        return False
    return refused(difference.ours) in (EINVAL, ENOMEM)


def bound_region(difference: Difference, sequence: Call) -> bool:
    if difference.what != "close" or not difference.call["name"].startswith("mr"):
        return False
    return error_code(difference.ours) == EBUSY and error_code(difference.theirs) == EINVAL


def untold_event(difference: Difference, sequence: Call) -> bool:
    if difference.kind != "event" or difference.theirs:
        return False
    return difference.what in (str(REQUEST_EVENT), str(ACCESS_EVENT), str(LAST_WQE_EVENT))


def unasked_event(difference: Difference, sequence: Call) -> bool:
    return difference.kind == "event" and difference.what == str(DRAINED_EVENT) and not difference.ours


def misaligned_atomic(difference: Difference, sequence: Call) -> bool:
    wrong = [wr for wr in work_requests(difference) if wr["opcode"] in (SWAP, ADD) and wr["remote"][1] & 7]
    return bool(wrong) and difference.ours is None and refused(difference.theirs) == EINVAL


def fenced_retry(difference: Difference, sequence: Call) -> bool:
    fenced = any(wr["flags"] & FENCE for wr in work_requests(difference))
    return fenced and statuses(difference) == (RETRY_EXCEEDED, None)


def no_sqe(difference: Difference, sequence: Call) -> bool:
    if not any(call["do"] == "qp" and call["type"] != 2 for call in sequence["calls"]):
        return False
    if difference.kind == "state":
        return bool(difference.ours == SQE)
    return difference.what == "query" and isinstance(difference.ours, list) and difference.ours[0] == SQE


def changes(sequence: Call) -> list[tuple[int, Call]]:
    """Return the calls that modify queue pairs, with their places."""
    return [(index, call) for index, call in enumerate(sequence["calls"]) if call["do"] == "modify"]


def drained(difference: Difference, sequence: Call) -> bool:
    at = {call["name"]: index for index, call in reversed(changes(sequence)) if call["state"] == SQD}
    if not at or difference.index <= min(at.values()):
        return False
    if difference.kind == "result":
        back = difference.what == "modify" and difference.call["state"] == RTS and difference.call["name"] in at
        return back and difference.ours is None and error_code(difference.theirs) == EINVAL
    return difference.kind == "extra" and statuses(difference) == (SUCCESS, None)


def unfitting(sequence: Call) -> set[str]:
    """Return the queue pairs at either end of a connection on which one side sends other numbers than are expected."""
    numbers: dict[str, Call] = {}
    peers: dict[str, str] = {}
    for _, call in changes(sequence):
        numbers.setdefault(call["name"], {}).update(call.get("values", {}))
        peers.update({call["name"]: call["peer"]} if "peer" in call else {})
    sent = {name: given.get("sq_psn", 0) for name, given in numbers.items()}
    expected = {name: given.get("rq_psn", 0) for name, given in numbers.items()}
    return {end for name, peer in peers.items() if sent[name] != expected.get(peer, 0) for end in (name, peer)}


def sequence_numbers(difference: Difference, sequence: Call) -> bool:
    name = difference.what.partition(".")[0]
    if difference.kind in ("completion", "missing", "extra", "state"):
        return name in unfitting(sequence)
    return difference.kind == "memory" and bool(unfitting(sequence))


def partition_keys(difference: Difference, sequence: Call) -> bool:
    if difference.what != "modify" or difference.theirs is not None:
        return False
    return bool(difference.call["values"].get("pkey_index", 0) > 0)


KNOWN = (
    Known("receive posted in ERR", "IBA 10.3.1.7; ibv_post_recv(3)", unflushed),
    Known("local protection error", "IBA 11.6.2; ibv_poll_cq(3)", protection),
    Known("receive too short", "IBA 11.6.2; ibv_poll_cq(3)", short_receive),
    Known("receive of a refused write", "IBA 11.6.2, table 59", refused_write),
    Known("length of an atomic", "IBA 9.4.5, 11.4.1.1", atomic_length),
    Known("refused invalidation", "IBA 9.9.3, class J", refused_invalidation),
    Known("bounds of a window", "IBA 10.6.7.2; ibv_bind_mw(3)", window_bounds),
    Known("flag of an invalidated key", "ibv_poll_cq(3), IBV_WC_WITH_INV", invalidated_flag),
    Known("two mistakes at once", "either is true", two_mistakes),
    Known("a batch that is refused", "ibv_post_send(3)", refused_batch),
    Known("region with windows", "ibv_dereg_mr(3) names no code", bound_region),
    Known("events of a responder", "IBA 11.6.3.2, 11.6.3.1", untold_event),
    Known("event of a drained queue", "IBA 10.3.1.5; ibv_modify_qp(3)", unasked_event),
    Known("misaligned atomic", "IBA 9.4.5, 11.6.2", misaligned_atomic),
    Known("fenced READ that nobody answers", "IBA 9.7.5.1.4, 10.8.3.3", fenced_retry),
    Known("inline where there is nothing to send", "ibv_post_send(3)", bad_inline),
    Known("opcode that the type does not have", "ibv_post_send(3), table of opcodes", bad_opcode),
    Known("send queue error state", "IBA 10.3.1.6", no_sqe),
    Known("send queue drained", "IBA 10.3.1.5", drained),
    Known("packet sequence numbers that do not fit", "IBA 9.7.1: there are no packets", sequence_numbers),
    Known("index of a partition key", "IBA 10.9.1; the device reports one", partition_keys),
)


def explain(difference: Difference, sequence: Call) -> Known | None:
    """Return the known difference that this one is, None if it is new."""
    return next((known for known in KNOWN if known.matches(difference, sequence)), None)
