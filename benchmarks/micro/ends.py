"""Two connected queue pairs of one process: what the microbenchmarks of the data path work on."""

from dataclasses import dataclass
from itertools import pairwise

from benchmarks.resources import Node
from ffverbs.cq import CQ
from ffverbs.libibverbs_enums import (
    IBV_ACCESS_LOCAL_WRITE,
    IBV_ACCESS_REMOTE_WRITE,
    IBV_QPT_RC,
    IBV_WR_RDMA_WRITE,
    IBV_WR_SEND,
)
from ffverbs.mr import MR
from ffverbs.qp import QP, QPCap, QPInitAttr
from ffverbs.wr import SGE, RecvWR, SendWR

DEPTH = 512
BUFFER_BYTES = 1 << 20
ACCESS = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE


@dataclass
class Pair:
    """Two connected queue pairs of two contexts; the first one sends, each has a completion queue for all it does."""

    here: Node
    there: Node
    sender: QP
    receiver: QP
    source: MR
    target: MR

    def write(self, size_bytes: int) -> SendWR:
        """Return a request that writes `size_bytes` to the other side."""
        wr = SendWR(1, IBV_WR_RDMA_WRITE, 1, 0, [SGE(self.source.buf, size_bytes, self.source.lkey)])
        wr.set_wr_rdma(self.target.rkey, self.target.buf)
        return wr

    def send(self, size_bytes: int) -> SendWR:
        """Return a request that sends `size_bytes`."""
        return SendWR(1, IBV_WR_SEND, 1, 0, [SGE(self.source.buf, size_bytes, self.source.lkey)])

    def receive(self) -> RecvWR:
        """Return a request that receives any of these."""
        return RecvWR(2, 1, [SGE(self.target.buf, BUFFER_BYTES, self.target.lkey)])

    def writes(self, count: int) -> SendWR:
        """Return a list of `count` writes of 8 bytes."""
        chain = [self.write(8) for _ in range(count)]
        for one, following in pairwise(chain):
            one.next_wr = following
        return chain[0]


def make_qp(node: Node, cq: CQ) -> QP:
    """Create a queue pair of the depth that microbenchmarks need."""
    init = QPInitAttr(qp_type=IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(DEPTH, DEPTH, 1, 1, 64))
    return QP(node.pd, init)


def connect(here: Node, sender: QP, there: Node, receiver: QP) -> None:
    """Bring both to RTS, allowing writes."""
    for node, qp, peer, other in ((here, sender, there, receiver), (there, receiver, here, sender)):
        node.connect(qp, peer.gid, other.qp_num, ACCESS)


def make_pair() -> Pair:
    """Return a connected pair of two contexts."""
    here, there = Node(2 * DEPTH), Node(2 * DEPTH)
    sender, receiver = make_qp(here, here.cq), make_qp(there, there.cq)
    connect(here, sender, there, receiver)
    return Pair(here, there, sender, receiver, MR(here.pd, BUFFER_BYTES, ACCESS), MR(there.pd, BUFFER_BYTES, ACCESS))
