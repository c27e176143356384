"""Connect by address and port, say hello, hear the answer: the connection manager, written against pyverbs alone.

$ python -m ffverbs docs/examples/cm_hello.py server 127.0.0.1
$ python -m ffverbs docs/examples/cm_hello.py client 127.0.0.1

Between containers the server listens at 0.0.0.0, and the client is given the server's address.
"""

import sys

import pyverbs.cm_enums as ce
import pyverbs.enums as e
from pyverbs.cmid import CMID, AddrInfo, ConnParam
from pyverbs.qp import QPCap, QPInitAttr

PORT = "7471"


def queue_pair() -> QPInitAttr:
    """Return what the queue pairs of both sides are like."""
    return QPInitAttr(cap=QPCap(max_send_wr=2, max_recv_wr=2))


def received(peer: CMID) -> int:
    """Wait for a message; return its bytes."""
    completion = peer.get_recv_comp()
    assert completion is not None and completion.status == e.IBV_WC_SUCCESS
    return completion.byte_len


def serve(address: str) -> None:
    """Take one connection and answer its message."""
    here = AddrInfo(src=address, src_service=PORT, port_space=ce.RDMA_PS_TCP, flags=ce.RAI_PASSIVE)
    with CMID(creator=here, qp_init_attr=queue_pair()) as listener:
        listener.listen()
        print("listening", flush=True)
        with listener.get_request() as peer:
            memory = peer.reg_msgs(64)
            peer.post_recv(memory)
            peer.accept()
            print("heard:", memory.read(received(peer), 0).decode())
            memory.write("hello, client", 13)
            peer.post_send(memory, length=13)
            peer.get_send_comp()
            peer.disconnect()


def ask(address: str) -> None:
    """Connect, send a message, and print the answer."""
    there = AddrInfo(dst=address, dst_service=PORT, port_space=ce.RDMA_PS_TCP)
    with CMID(creator=there, qp_init_attr=queue_pair()) as peer:
        answer, message = peer.reg_msgs(64), peer.reg_msgs(64)
        peer.post_recv(answer)
        peer.connect(ConnParam())
        message.write("hello, server", 13)
        peer.post_send(message, length=13)
        peer.get_send_comp()
        print("heard:", answer.read(received(peer), 0).decode())
        peer.disconnect()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("server", "client"):
        sys.exit(f"usage: {sys.argv[0]} server|client ADDRESS")
    (serve if sys.argv[1] == "server" else ask)(sys.argv[2])
