"""Contexts, domains, regions and device memory that another Context made are imported and used (decision 0012)."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, cast

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs import _containers as containers
from ffverbs import mem_alloc
from ffverbs.cq import CQ
from ffverbs.device import DM, AllocDmAttr, Context
from ffverbs.mr import DMMR, MR
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from ffverbs.qp import QP, QPCap, QPInitAttr
from tests.conformance import paths
from tests.conformance.pair import ALL_ACCESS, Address, Options, Peer, Recv, Send, pattern
from tests.conformance.side import Objects

WAYS = ("here", "process", "container")
PAGE = 4096
SEND, WRITE, READ = int(e.IBV_WR_SEND), int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_READ)
_MAIN = "import sys; from tests.conformance.test_import import worker_main; worker_main(sys.argv[1])"


class ImportPeer(Peer):
    """A side whose context, domain and memory are imported; its queue pairs are its own."""

    def fetch(self, path: str, directory: str) -> None:
        """Import the context whose descriptor comes through the Unix socket at `path`."""
        os.environ["FFVERBS_DIR"] = directory
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            (fd,) = socket.recv_fds(connection, 1, 1)[1]
        self._ctx = Context(cmd_fd=fd)

    def use(self, pd_handle: int, mr_handle: int, address: int) -> Address:
        """Import the domain and the region, and make a queue pair in that domain."""
        pd = PD(self._ctx, handle=pd_handle)
        cq, recv_cq = CQ(self._ctx, 16), CQ(self._ctx, 16)
        cap = QPCap(8, 8, 2, 2)
        qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=recv_cq, cap=cap))
        self._o = Objects(self._ctx, pd, None, cq, recv_cq, None, [qp])
        self._mr = MR(pd, handle=mr_handle, address=address)
        return self.address()

    def refused(self, what: str, handle: int, pd_handle: int = 0) -> int:
        """Return the errno of an import that is refused, 0 if it is not."""
        try:
            if what == "mr":
                with PD(self._ctx, handle=pd_handle) as pd, MR(pd, handle=handle):
                    pass
            elif what == "pd":
                PD(self._ctx, handle=handle).close()
            else:
                DM(self._ctx, handle=handle).close()
        except PyverbsRDMAError as error:
            return error.error_code
        return 0

    def unimport(self) -> None:
        """Give region and domain up, in the order and with the calls of rdma-core's own test."""
        self._memory.unimport()
        self._objects.pd.unimport()
        self._objects.pd.close()

    def dm_bytes(self, handle: int, length: int) -> bytes:
        """Import device memory, read it, add one to its first byte, and give it up."""
        dm = DM(self._ctx, handle=handle)
        data = dm.copy_from_dm(0, length)
        dm.copy_to_dm(0, bytes([(data[0] + 1) % 256]) + data[1:4], 4)
        dm.unimport()
        return data

    def read_by_key(self, dm_handle: int, length: int) -> bytes:
        """Register imported device memory, and read it by a work request; the queue pair is connected to itself."""
        o = self._objects
        dm = DM(self._ctx, handle=dm_handle)
        mr = DMMR(o.pd, length, e.IBV_ACCESS_ZERO_BASED | e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_READ, dm, 0)
        own = MR(o.pd, length, ALL_ACCESS)
        piece = (own.buf - self._memory.buf, length, own.lkey)
        self.post_send(Send(opcode=READ, pieces=(piece,), remote=0, rkey=mr.rkey))
        assert self.sent()[0].ok
        data = own.read(length, 0)
        with pytest.raises(PyverbsRDMAError) as caught:
            dm._destroy(dm._handle)  # the engine keeps it while it is registered
        assert caught.value.error_code == errno.EBUSY
        dm.unimport()  # with the region over it
        return data

    def close(self) -> None:
        self._ctx.close()
        self._o = self._mr = None


def worker_main(address: str) -> None:
    """Be a worker: connect to the Unix socket at `address` and obey."""
    paths.serve(Client(address, "AF_UNIX"), ImportPeer())


def export(ctx: Context, listener: socket.socket) -> None:
    """Send a copy of the context's descriptor to who connects."""
    connection, _ = listener.accept()
    with connection:
        socket.send_fds(connection, [b"x"], [ctx.cmd_fd])


@contextmanager
def imported(way: str, directory: Path, ctx: Context) -> Iterator[ImportPeer]:
    """A side that has imported the context, in this process or another one."""
    inside, worker = str(directory), None
    if way == "container":
        if reason := containers.unavailable():
            pytest.skip(f"containers cannot be made on this host: {reason}")
        worker = paths.contain(directory, "importer", _MAIN)
        inside = containers.SHARED_INSIDE
    elif way == "process":
        worker = paths.spawn(directory, "importer", _MAIN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "fds"))
        listener.listen()
        if worker is None:
            here = ImportPeer()
            here._ctx = Context(cmd_fd=os.dup(ctx.cmd_fd))
            peer: Any = here
        else:
            answer = worker._begin("fetch", f"{inside}/fds", inside)
            export(ctx, listener)
            answer()
            peer = worker
    (directory / "fds").unlink()
    try:
        yield cast(ImportPeer, peer)
        peer.close()
    finally:
        if worker is not None:
            worker._end()


@pytest.fixture
def exporter(node_directory: Path) -> Iterator[Peer]:
    """A side in this process, with whole pages of memory."""
    peer = Peer()
    peer.create(Options(length=4 * PAGE), str(node_directory))
    yield peer
    peer.close()


def handles(exporter: Peer) -> tuple[int, int, int]:
    return exporter._objects.pd.handle, exporter._memory.handle, exporter._memory.buf


@pytest.mark.parametrize("way", WAYS)
def test_imported_memory_is_the_exporters(way: str, exporter: Peer, node_directory: Path, seed: int) -> None:
    with imported(way, node_directory, exporter._objects.ctx) as importer, Context(name="ffv0") as ctx:
        to_importer = importer.use(*handles(exporter))
        # As remote memory: a third context writes and reads what belongs to the exporter by the importer's key.
        third = Peer()
        third._ctx = ctx  # type: ignore[attr-defined]
        to_third = third.create(Options(length=4 * PAGE), str(node_directory))
        third.connect(to_importer)
        importer.connect(to_third)
        data = pattern(2 * PAGE + 5, seed)
        third.write(data)
        there, rkey = to_importer.addr, to_importer.rkey
        third.post_send(Send(opcode=WRITE, pieces=((0, len(data)),), remote=there + 3, rkey=rkey))
        assert third.sent()[0].ok
        assert exporter.read(len(data), 3) == data
        exporter.write(b"exporter", 100)
        third.post_send(Send(opcode=READ, pieces=((0, 8),), remote=to_importer.addr + 100, rkey=to_importer.rkey))
        assert third.sent()[0].ok
        assert third.read(8) == b"exporter"
        # As local memory: what the importer sends and receives with its key is the exporter's.
        third.post_recv(Recv(1, ((0, 8),)))
        importer.post_send(Send(pieces=((100, 8),)))
        assert importer.sent()[0].ok and third.received()[0].ok
        assert third.read(8) == b"exporter"
        importer.post_recv(Recv(2, ((200, 8),)))
        third.write(b"received")
        third.post_send(Send(pieces=((0, 8),)))
        assert third.sent()[0].ok and importer.received()[0].ok
        assert exporter.read(8, 200) == b"received"
        # Its own limits are those of the region.
        end = to_importer.addr + 4 * PAGE
        third.post_send(Send(opcode=WRITE, pieces=((0, 8),), remote=end - 4, rkey=to_importer.rkey))
        assert third.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR
        third.close()
        importer.unimport()


@pytest.mark.parametrize("way", WAYS)
def test_device_memory(way: str, exporter: Peer, node_directory: Path) -> None:
    ctx = exporter._objects.ctx
    first, dm = DM(ctx, AllocDmAttr(8)), DM(ctx, AllocDmAttr(5000))
    dm.copy_to_dm(0, b"\x07of the exporter", 16)
    with imported(way, node_directory, ctx) as importer:
        assert importer.dm_bytes(dm.handle, 16) == b"\x07of the exporter"
        assert dm.copy_from_dm(0, 4) == b"\x08of "
        assert importer.refused("dm", dm.handle) == 0
        assert importer.refused("dm", 1 << 20) == errno.EINVAL
        address = importer.use(*handles(exporter))
        importer.connect(address)
        assert importer.read_by_key(dm.handle, 16) == b"\x08of the exporter"
        gone = first.handle
        first.close()
        assert importer.refused("dm", gone) == errno.EINVAL
        importer.unimport()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_there_cannot_be_imported(way: str, exporter: Peer, node_directory: Path) -> None:
    ctx, pd = exporter._objects.ctx, exporter._objects.pd
    other, closed = PD(ctx), PD(ctx)
    elsewhere = MR(other, PAGE, ALL_ACCESS)
    gone = closed.handle
    closed.close()
    with imported(way, node_directory, ctx) as importer:
        assert importer.refused("pd", other.handle) == 0
        assert importer.refused("mr", elsewhere.handle, other.handle) == 0
        for handle in (gone, other.handle + 65536, 0xFFFFFFFF):
            assert importer.refused("pd", handle) == errno.EINVAL
        for handle in (elsewhere.handle, 0, 1 << 18, 0xFFFFFFFF):
            assert importer.refused("mr", handle, pd.handle) == errno.EINVAL
        stale = elsewhere.handle
        elsewhere.close()
        assert importer.refused("mr", stale, other.handle) == errno.EINVAL


def test_memory_that_cannot_be_mapped(exporter: Peer, node_directory: Path) -> None:
    """The edges of a page are only the owner's: in its process that does not matter, another one is told."""
    address = mem_alloc.malloc(200)
    ctx, pd = exporter._objects.ctx, exporter._objects.pd
    with MR(pd, 100, ALL_ACCESS, address=address) as mr:
        with imported("process", node_directory, ctx) as importer:
            assert importer.refused("mr", mr.handle, pd.handle) == errno.EOPNOTSUPP
        with imported("here", node_directory, ctx) as importer:
            assert importer.refused("mr", mr.handle, pd.handle) == 0
    mem_alloc.free(address)


def test_either_may_close_first(node_directory: Path) -> None:
    first = Context(name="ffv0")
    second = Context(cmd_fd=os.dup(first.cmd_fd))
    assert (second.name, second.context) == ("ffv0", first.context)
    pd, cq = PD(first), CQ(second, 5)
    same = PD(second, handle=pd.handle)
    mr = MR(pd, PAGE, ALL_ACCESS)
    seen = MR(same, handle=mr.handle)
    assert (seen.lkey, seen.rkey, seen.buf, seen.length) == (mr.lkey, mr.rkey, 0, PAGE)
    with pytest.raises(PyverbsUserError, match="address"):
        seen.read(1, 0)
    with pytest.raises(PyverbsRDMAError) as caught:
        seen.rereg(e.IBV_REREG_MR_CHANGE_ACCESS, access=0)
    assert caught.value.error_code == errno.EINVAL
    qp = QP(same, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(1, 1)))
    same.unimport()
    same.unimport()
    with pytest.raises(PyverbsError, match="unimported"):
        same.handle  # noqa: B018 - reading it is the test
    assert qp.qp_num  # what was made in it goes on
    qp.close()
    first.close()
    assert cq.poll(1)[0] == 0
    assert len(list(node_directory.iterdir())) > 0
    second.close()


def test_descriptors_that_are_no_context(node_directory: Path) -> None:
    with Context(name="ffv0") as ctx:
        closed = os.dup(ctx.cmd_fd)
    with socket.socket(socket.AF_UNIX) as plain, (node_directory / "file").open("w") as file:
        for fd, code in ((plain.fileno(), errno.EINVAL), (file.fileno(), errno.EINVAL), (-1, errno.EBADF)):
            with pytest.raises(PyverbsRDMAError, match="Failed to import device") as caught:
                Context(cmd_fd=fd)
            assert caught.value.error_code == code
    with pytest.raises(PyverbsRDMAError) as caught:
        Context(cmd_fd=closed)
    assert caught.value.error_code == errno.ENOENT
    os.close(closed)  # still the caller's
    (node_directory / "file").unlink()
