"""A process without a free descriptor: who connects to it waits, it does not burn its processor, and it goes on."""

import subprocess
import sys
from pathlib import Path

from ffverbs import libibverbs_enums as e
from ffverbs.addr import GID, AHAttr, GlobalRoute
from ffverbs.cq import CQ
from ffverbs.device import Context
from ffverbs.mr import MR
from ffverbs.pd import PD
from ffverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from ffverbs.wr import SGE, RecvWR, SendWR
from tests.conformance.pair import DEADLINE_S

ROOT = Path(__file__).parents[2]
SCRIPT = "from tests.conformance.test_full_table import be_full; be_full()"
# What the attempts to connect may cost the process that cannot take them, in a second of waiting.
IDLE_S = 0.2


class End:
    """One queue pair with its queue and memory."""

    def __init__(self) -> None:
        self.ctx = Context(name="ffv0")
        self.pd = PD(self.ctx)
        self.mr = MR(self.pd, 4096, e.IBV_ACCESS_LOCAL_WRITE)
        self.cq = CQ(self.ctx, 16)
        self.qp = QP(self.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=QPCap()))

    def address(self) -> str:
        """GID and number, for the other end."""
        return f"{self.ctx.query_gid(1, 1)} {self.qp.qp_num}"

    def connect(self, address: str) -> None:
        """Go to RTS."""
        gid, qpn = address.split()
        attr = QPAttr(port_num=1)
        attr.dest_qp_num = int(qpn)
        attr.timeout, attr.retry_cnt, attr.rnr_retry, attr.min_rnr_timer = 18, 7, 7, 12
        attr.ah_attr = AHAttr(port_num=1, is_global=1, gr=GlobalRoute(dgid=GID(gid), sgid_index=1))
        self.qp.to_rts(attr)

    def wait(self) -> None:
        """Wait for one completion, which has to be a success."""
        count = 0
        while not count:
            count, completions = self.cq.poll()
        assert completions[0].status == e.IBV_WC_SUCCESS


def be_full() -> None:
    """The other process: tells its address, has no descriptor until it is told, tells what that cost, receives."""
    import os  # noqa: PLC0415 - what only this process needs
    import resource  # noqa: PLC0415
    import time  # noqa: PLC0415

    end = End()
    address = input()
    free = os.dup(0)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    before = time.process_time()
    print(end.address(), flush=True)
    input()
    print(time.process_time() - before, flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    end.connect(address)
    end.qp.post_recv(RecvWR(num_sge=1, sg=[SGE(end.mr.buf, 64, end.mr.lkey)]))
    end.wait()
    print(end.mr.read(5, 0).decode(), flush=True)
    end.ctx.close()


def test_who_connects_waits_for_a_descriptor(node_directory: Path) -> None:
    end = End()
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout
        try:
            other.stdin.write(end.address() + "\n")
            other.stdin.flush()
            end.connect(other.stdout.readline())  # waits a second for a peer that does not answer, then goes on
            other.stdin.write("\n")
            other.stdin.flush()
            assert float(other.stdout.readline()) < IDLE_S
            end.mr.write("hello", 5)
            end.qp.post_send(SendWR(opcode=e.IBV_WR_SEND, num_sge=1, sg=[SGE(end.mr.buf, 5, end.mr.lkey)]))
            end.wait()
            assert other.stdout.readline() == "hello\n"
            assert other.wait(DEADLINE_S) == 0
        finally:
            other.kill()
            end.ctx.close()
