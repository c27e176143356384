"""Calls of the connection manager, legal and illegal, written against pyverbs 44: prints a line for what each one did.

Run with an address of this host; test_cm_differential.py compares what two implementations print. Both sides of every
connection are in this one thread, each with an event channel.
"""
# mypy: disable-error-code="import-not-found"

import functools
import sys
from collections.abc import Callable
from typing import Any

import pyverbs.cm_enums as ce
import pyverbs.enums as e
from pyverbs.cmid import CMID, AddrInfo, CMEvent, CMEventChannel, ConnParam, UDParam
from pyverbs.pyverbs_error import PyverbsError
from pyverbs.qp import QPCap, QPInitAttr

QP_FIELDS = ("qp_state", "qkey", "qp_access_flags", "max_rd_atomic", "max_dest_rd_atomic", "min_rnr_timer", "timeout",
             "retry_cnt", "rnr_retry", "port_num", "pkey_index")  # fmt: skip


def tell(step: str, outcome: object) -> None:
    print(f"{step}: {outcome}", flush=True)


def call(step: str, what: Callable[[], Any]) -> None:
    """Do it, and tell its result or its error's code."""
    try:
        result = what()
    except PyverbsError as error:
        tell(step, f"{type(error).__name__} {getattr(error, 'error_code', None)}")
    else:
        tell(step, "done" if result is None else result)


def param(data: bytes = b"", **values: int) -> ConnParam:
    made = ConnParam(data_len=len(data), **values)
    if data:
        made.set_private_data(data)
    return made


def qp_attr(space: int) -> QPInitAttr:
    kind = e.IBV_QPT_RC if space == ce.RDMA_PS_TCP else e.IBV_QPT_UD
    return QPInitAttr(qp_type=kind, cap=QPCap(max_recv_wr=1))


def qp_of(one: CMID) -> str:
    attr, _ = one.query_qp(0x1FFFFF)
    return " ".join(f"{field}={int(getattr(attr, field))}" for field in QP_FIELDS)


def mask_for(one: CMID, state: int) -> int:
    return int(one.init_qp_attr(state)[1])


class Conversation:
    """A listener and an id that is about to connect to it."""

    def __init__(self, name: str, address: str, port: int, space: int = ce.RDMA_PS_TCP, listening: bool = True) -> None:
        self.name, self.space = name, space
        self.server, self.client = CMEventChannel(), CMEventChannel()
        self.listener = CMID(creator=self.server, port_space=space)
        self.id = CMID(creator=self.client, port_space=space)
        self.child: CMID | None = None
        here = AddrInfo(src=address, src_service=str(port), port_space=space, flags=ce.RAI_PASSIVE)
        self.listener.bind_addr(here)
        if listening:
            self.listener.listen()
        self.id.resolve_addr(AddrInfo(src=address, dst=address, dst_service=str(port), port_space=space))
        self.event(self.client)
        self.id.resolve_route()
        self.event(self.client)
        self.id.create_qp(qp_attr(space))

    def event(self, channel: CMEventChannel, make_child: bool = False) -> None:
        event = CMEvent(channel)
        data = event.private_data or b""
        tell(f"{self.name} event", f"{event.event_str()} {len(data)} {data.rstrip(bytes(1))!r}")
        if make_child:
            self.child = CMID(creator=event, listen_id=self.listener)
        if event.event_type == ce.RDMA_CM_EVENT_ESTABLISHED and self.space == ce.RDMA_PS_UDP:
            ud = UDParam(event)
            tell(f"{self.name} peer", f"{ud.qkey:#x} {ud.ah_attr.is_global} {ud.ah_attr.port_num}")
        event.ack_cm_event()

    def call(self, step: str, what: Callable[[], Any]) -> None:
        call(f"{self.name} {step}", what)

    def close(self) -> None:
        for one in (self.child, self.id, self.listener):
            if one is not None:
                one.close()


def connections(address: str) -> None:
    talk = Conversation("connect", address, 7500)
    talk.id.connect(param(b"hello", resources=3, depth=5, retry=6, rnr_retry=4))
    talk.event(talk.server, make_child=True)
    child = talk.child
    assert child is not None
    child.create_qp(qp_attr(ce.RDMA_PS_TCP))
    tell("connect new qp", qp_of(child))
    for state in (e.IBV_QPS_INIT, e.IBV_QPS_RTR, e.IBV_QPS_RTS):
        talk.call(f"mask for {int(state)}", functools.partial(mask_for, child, state))
    child.accept(param(b"world", resources=2, depth=1, retry=1, rnr_retry=2))
    talk.event(talk.client)
    talk.event(talk.server)
    tell("connect server qp", qp_of(child))
    tell("connect client qp", qp_of(talk.id))
    talk.call("accept again", lambda: child.accept(param()))
    talk.call("connect again", lambda: talk.id.connect(param()))
    talk.call("establish", talk.id.establish)
    talk.call("reject", lambda: child.reject(b"late"))
    talk.call("ece", talk.id.get_remote_ece)
    talk.call("listen", talk.id.listen)
    child.disconnect()
    talk.event(talk.client)
    talk.call("disconnect", talk.id.disconnect)
    talk.event(talk.server)
    talk.call("disconnect again", talk.id.disconnect)
    talk.close()


def refusals(address: str) -> None:
    talk = Conversation("reject", address, 7501)
    talk.id.connect(param(b"q" * 56))
    talk.event(talk.server, make_child=True)
    assert talk.child is not None
    talk.child.reject(b"no thanks")
    talk.event(talk.client)
    tell("reject client qp", qp_of(talk.id))
    talk.call("connect again", lambda: talk.id.connect(param()))
    talk.close()
    talk = Conversation("limit", address, 7502)
    talk.call("57 bytes", lambda: talk.id.connect(param(b"q" * 57)))
    talk.call("retry 8", lambda: talk.id.connect(param(retry=8)))
    talk.close()
    talk = Conversation("bound only", address, 7503, listening=False)
    talk.id.connect(param())
    talk.event(talk.client)
    talk.close()
    talk = Conversation("child closed", address, 7504)
    talk.id.connect(param())
    talk.event(talk.server, make_child=True)
    assert talk.child is not None
    talk.child.close()
    talk.event(talk.client)
    talk.close()


def datagrams(address: str) -> None:
    talk = Conversation("udp", address, 7505, ce.RDMA_PS_UDP)
    talk.id.connect(param(b"u" * 180))
    talk.event(talk.server, make_child=True)
    child = talk.child
    assert child is not None
    child.create_qp(qp_attr(ce.RDMA_PS_UDP))
    tell("udp qp", qp_of(child))
    child.accept(param(b"a" * 136))
    talk.event(talk.client)
    talk.call("disconnect", child.disconnect)
    talk.close()
    talk = Conversation("udp reject", address, 7506, ce.RDMA_PS_UDP)
    talk.id.connect(param(b"u"))
    talk.event(talk.server, make_child=True)
    assert talk.child is not None
    talk.child.reject(b"nay")
    talk.event(talk.client)
    talk.close()


def states(address: str) -> None:
    channel = CMEventChannel()
    here = AddrInfo(src=address, src_service="7507", port_space=ce.RDMA_PS_TCP, flags=ce.RAI_PASSIVE)
    one, other = CMID(creator=channel), CMID(creator=channel)
    call("idle disconnect", one.disconnect)
    call("bind", lambda: one.bind_addr(here))
    call("bind again", lambda: one.bind_addr(here))
    call("bind another", lambda: other.bind_addr(here))
    call("bound disconnect", one.disconnect)
    call("bound mask", lambda: one.init_qp_attr(e.IBV_QPS_INIT)[1])
    call("listen", one.listen)
    call("listen again", one.listen)
    call("listening connect", lambda: one.connect(param()))
    call("listening accept", lambda: one.accept(param()))
    call("bind a foreign address", lambda: other.bind_addr(AddrInfo(src="192.0.2.77", flags=ce.RAI_PASSIVE)))
    call("join by tcp", lambda: other.join_multicast(AddrInfo(src="230.0.0.1")))
    call("ack timeout", lambda: other.set_option(ce.RDMA_OPTION_ID, ce.RDMA_OPTION_ID_ACK_TIMEOUT, 21, 1))
    call("ack timeout of 4 bytes", lambda: other.set_option(ce.RDMA_OPTION_ID, ce.RDMA_OPTION_ID_ACK_TIMEOUT, 21, 4))
    for closed in (one, other):
        closed.close()
    member = CMID(creator=channel, port_space=ce.RDMA_PS_UDP)
    group = AddrInfo(src="230.0.0.1")
    member.bind_addr(AddrInfo(src=address, port_space=ce.RDMA_PS_UDP, flags=ce.RAI_PASSIVE))
    call("leave what was not joined", lambda: member.leave_multicast(group))
    call("join", lambda: member.join_multicast(group))
    event = CMEvent(channel)
    ud = UDParam(event)
    tell("joined", f"{event.event_str()} {ud.qp_num:#x} {ud.qkey:#x} {ud.ah_attr.dgid}")
    event.ack_cm_event()
    call("leave", lambda: member.leave_multicast(group))
    call("leave again", lambda: member.leave_multicast(group))
    member.close()


if __name__ == "__main__":
    for theme in (connections, refusals, datagrams, states):
        theme(sys.argv[1])
    tell("end", "reached")
