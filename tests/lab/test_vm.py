"""The lab's virtual machines do what vm/machine.py says: commands, deadlines, Soft-RoCE, a wire between two."""

import sys
from pathlib import Path

import pytest

from tests.lab.vm import packages
from tests.lab.vm.machine import Cable, Machine, MachineError
from tests.unit.real_pyverbs import DEBIAN_PACKAGES

pytestmark = pytest.mark.skipif(packages.unavailable() is not None, reason=f"no machine: {packages.unavailable()}")

REAL_PYVERBS = {"PYTHONPATH": DEBIAN_PACKAGES, "PYTHONDONTWRITEBYTECODE": "1"}
LISTEN = """
from pyverbs.cmid import CMID, AddrInfo
from pyverbs.qp import QPInitAttr, QPCap
import pyverbs.cm_enums as ce
address = AddrInfo(src="{address}", src_service="7471", port_space=ce.RDMA_PS_TCP, flags=ce.RAI_PASSIVE)
with CMID(creator=address, qp_init_attr=QPInitAttr(cap=QPCap())) as listener:
    listener.listen()
    print("listening", flush=True)
    peer = listener.get_request()
    mr = peer.reg_msgs(64)
    peer.post_recv(mr)
    peer.accept()
    print(peer.get_recv_comp().status, mr.read(5, 0).decode())
    peer.disconnect()
"""
CONNECT = """
from pyverbs.cmid import CMID, AddrInfo
from pyverbs.qp import QPInitAttr, QPCap
import pyverbs.cm_enums as ce
address = AddrInfo(dst="{address}", dst_service="7471", port_space=ce.RDMA_PS_TCP)
with CMID(creator=address, qp_init_attr=QPInitAttr(cap=QPCap())) as peer:
    mr = peer.reg_msgs(64)
    mr.write("hello", 5)
    peer.connect()
    peer.post_send(mr, 2, 5)
    print(peer.get_send_comp().status)
"""


@pytest.mark.timeout(400)
def test_one_machine() -> None:
    with Machine("one") as machine:
        failed = machine.run(["sh", "-c", 'echo "$WORD"; echo wrong >&2; exit 3'], environment={"WORD": "a b"})
        assert (failed.status, failed.output) == (3, "a b\nwrong\n")
        assert machine.run(["cat", "test_vm.py"], folder=Path(__file__).parent).output == Path(__file__).read_text()
        assert machine.run(["touch", "/etc/written"]).status != 0, "the host's tree can be written"
        asleep = machine.begin(["sh", "-c", "echo asleep; sleep 600"])
        with pytest.raises(MachineError, match=r"(?s)did not end within 2 s.*asleep"):
            asleep.wait(2)
        assert asleep.wait().status != 0
        (machine.share / "there").write_text("from the host")
        assert machine.run(["cat", "/run/share/there"]).output == "from the host"
        program = "import pyverbs.device as d; print(d.Context(name='rxe0').query_port(1).state)"
        result = machine.run([sys.executable, "-c", program], environment=REAL_PYVERBS)
        assert (result.status, result.output) == (0, "4\n")
        home = machine.share.parent
    assert not home.exists()


@pytest.mark.timeout(600)
def test_two_machines_on_a_wire(tmp_path: Path) -> None:
    left, right = Cable.pair(tmp_path)
    with Machine("left", cable=left) as a, Machine("right", cable=right) as b:
        server = a.begin([sys.executable, "-c", LISTEN.format(address=left.address)], environment=REAL_PYVERBS)
        server.wait_for("listening")
        client = b.run([sys.executable, "-c", CONNECT.format(address=left.address)], environment=REAL_PYVERBS)
        assert (client.status, client.output) == (0, "0\n")
        heard = server.wait()
        assert (heard.status, heard.output) == (0, "listening\n0 hello\n")
