"""Memory that is registered by something else than its address, and addresses that are not the memory's."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.device import Context
from ffverbs.mr import MR, Buf, BufMR, DmaBufMR, DMAHandle, DmaHandleInitAttr, MREx
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from tests.conformance.pair import ALL_ACCESS, Options, Pair, Peer, Send, pattern

PAGE = 4096
WRITE, READ = int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_READ)


@pytest.fixture
def pd() -> Iterator[PD]:
    with Context(name="ffv0") as context:
        yield PD(context)


@contextmanager
def memfd(length: int, seals: int = fcntl.F_SEAL_SHRINK) -> Iterator[int]:
    fd = os.memfd_create("ffverbs-test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, length)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    try:
        yield fd
    finally:
        os.close(fd)


def code(call: Callable[[], object]) -> int:
    with pytest.raises(PyverbsRDMAError, match="Failed to register") as caught:
        call()
    return caught.value.error_code


def test_buffers(pd: PD) -> None:
    buf = Buf(pd, 3 * PAGE)
    assert buf.size == 3 * PAGE and buf.addr % PAGE == 0
    assert str(buf.addr) in str(buf)
    mr = BufMR(pd, buf, 100, ALL_ACCESS, offset=PAGE + 5)
    assert (mr.buf, mr.length) == (buf.addr + PAGE + 5, 100)
    assert mr.read(100, 0) == bytes(100)
    rest = BufMR(pd, buf, access=ALL_ACCESS, offset=2 * PAGE)
    assert rest.length == PAGE
    for length, offset in ((3 * PAGE + 1, 0), (1, 3 * PAGE), (PAGE + 1, 2 * PAGE)):
        assert code(partial(BufMR, pd, buf, length, 0, offset)) == errno.EINVAL
    assert code(lambda: BufMR(PD(pd._context), buf, 1)) == errno.EINVAL
    with pytest.raises(PyverbsRDMAError) as caught:
        mr.rereg(e.IBV_REREG_MR_CHANGE_ACCESS, access=0)
    assert caught.value.error_code == errno.EINVAL
    with pytest.raises(PyverbsRDMAError) as caught:
        buf._destroy(buf._handle)
    assert caught.value.error_code == errno.EBUSY
    with pytest.raises(PyverbsRDMAError) as caught:
        buf.export_dmabuf_fd()
    assert caught.value.error_code == errno.EOPNOTSUPP
    with pytest.raises(PyverbsRDMAError) as caught:
        Buf(pd, 0)
    assert caught.value.error_code == errno.EINVAL
    buf.close()  # with its MRs
    with Buf(pd, 5):
        pd.close()  # with its buffers


def test_descriptors(pd: PD) -> None:
    with memfd(3 * PAGE) as fd:
        os.pwrite(fd, b"before", PAGE + 7)
        mr = DmaBufMR(pd, 100, ALL_ACCESS, fd, offset=PAGE + 7)
        assert (mr.offset, mr.dmabuf, mr.length) == (PAGE + 7, fd, 100)
        assert mr.read(6, 0) == b"before"
        mr.write(b"after", 5)
        assert os.pread(fd, 6, PAGE + 7) == b"aftere"
        for length, offset in ((3 * PAGE + 1, 0), (1, 3 * PAGE), (0, 0), (2**63, 2**63)):
            assert code(partial(DmaBufMR, pd, length, 0, fd, offset)) == errno.EINVAL
        assert code(lambda: DmaBufMR(pd, 1, e.IBV_ACCESS_ON_DEMAND, fd)) == errno.EINVAL
        assert code(lambda: DmaBufMR(pd, 1, e.IBV_ACCESS_REMOTE_WRITE, fd)) == errno.EINVAL
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        mr.close()
    with memfd(PAGE, seals=0) as fd:
        assert code(lambda: DmaBufMR(pd, 1, 0, fd)) == errno.EOPNOTSUPP
    with open(os.devnull) as file:
        assert code(lambda: DmaBufMR(pd, 1, 0, file.fileno())) == errno.EOPNOTSUPP
    assert code(lambda: DmaBufMR(pd, 1, 0, -1)) == errno.EBADF
    assert code(lambda: DmaBufMR(pd, 1, 0)) == errno.EOPNOTSUPP


def test_the_choices_of_mrex(pd: PD) -> None:
    buf = Buf(pd, PAGE)
    for choices in ({"address": 1, "fd": 1}, {"fd": 1, "buf": buf}, {"buf": buf, "implicit": True}):
        with pytest.raises(PyverbsUserError, match="give one of"):
            MREx(pd, 10, 0, **choices)
    assert MREx(pd, PAGE, ALL_ACCESS, buf=buf).buf == buf.addr
    assert MREx(pd, PAGE, ALL_ACCESS).read(5, 0) == bytes(5)
    with pytest.raises(PyverbsRDMAError) as caught:
        DMAHandle(pd._context, DmaHandleInitAttr())
    assert caught.value.error_code == errno.EOPNOTSUPP


@pytest.mark.parametrize("kind", ["allocated", "descriptor", "buffer"])
def test_an_address_of_ones_choice(here: Pair, kind: str, seed: int) -> None:
    """Peers and the owner name the first byte by `iova`, whatever its address is."""
    here.connect(Options(length=4 * PAGE))
    a, b, iova = here.a, here.b, 0x7FFF_FFFF_F000_0123
    b_pd = b._objects.pd
    with memfd(2 * PAGE) as fd:
        what = {"allocated": {}, "descriptor": {"fd": fd, "fd_offset": 9}, "buffer": {"buf": Buf(b_pd, PAGE)}}[kind]
        mr = MREx(b_pd, 1000, ALL_ACCESS, iova=iova, **what)  # type: ignore[arg-type]
    check_iova(a, b, mr, iova, seed)
    mr.close()


def check_iova(a: Peer, b: Peer, mr: MR, iova: int, seed: int) -> None:
    data = pattern(500, seed)
    a.write(data)
    a.post_send(Send(opcode=WRITE, pieces=((0, 500),), remote=iova + 400, rkey=mr.rkey))
    assert a.sent()[0].ok
    assert mr.read(500, 400) == data
    b.post_send(Send(opcode=READ, pieces=((iova + 400 - b._memory.buf, 500, mr.lkey),), remote=a.address().addr + 600,
                     rkey=a.address().rkey))  # fmt: skip
    assert b.sent()[0].ok
    assert mr.read(500, 400) == a.read(500, 600)
    a.post_send(Send(opcode=WRITE, pieces=((0, 500),), remote=iova + 501, rkey=mr.rkey))
    assert a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR
