"""Parent domains: a protection domain with allocators of the caller's."""

import errno
from collections.abc import Iterator

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.addr import AH, AHAttr, GlobalRoute
from ffverbs.cq import CQ, CQEX, CqInitAttrEx
from ffverbs.device import Context
from ffverbs.mem_alloc import free, posix_memalign
from ffverbs.mr import MR, MW
from ffverbs.pd import PD, ParentDomain, ParentDomainContext, ParentDomainInitAttr
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from ffverbs.qp import QP, QPCap, QPInitAttr
from ffverbs.srq import SRQ, SrqAttr, SrqInitAttr


@pytest.fixture
def ctx() -> Iterator[Context]:
    with Context(name="ffv0") as context:
        yield context


@pytest.fixture
def pd(ctx: Context) -> PD:
    return PD(ctx)


@pytest.fixture
def cq(ctx: Context) -> CQ:
    return CQ(ctx, 10)


class Allocators:
    """Allocators that remember what they gave, and can leave it to the default or fail."""

    def __init__(self, pd: PD, answer: int | None = None) -> None:
        self.pd, self.answer = pd, answer
        self.given: dict[int, int] = {}
        self.asked: list[int] = []
        self.context = ParentDomainContext(pd, self.alloc, self.free, user_data=self)

    def alloc(self, pd: PD, context: ParentDomainContext, size: int, alignment: int, resource_type: int) -> int:
        assert pd is self.pd and context.user_data is self
        self.asked.append(resource_type)
        if self.answer is not None:
            return self.answer
        address = posix_memalign(size, alignment)
        self.given[address] = resource_type
        return address

    def free(self, pd: PD, context: ParentDomainContext, address: int, resource_type: int) -> None:
        assert pd is self.pd and context.user_data is self
        assert self.given.pop(address) == resource_type
        free(address)


def test_parent_domains_allocate_for_what_is_made_in_them(pd: PD, ctx: Context, cq: CQ) -> None:
    allocators = Allocators(pd)
    parent = ParentDomain(ctx, ParentDomainInitAttr(pd, allocators.context))
    assert parent.handle == pd.handle and parent.pd != pd.pd
    srq = SRQ(parent, SrqInitAttr(SrqAttr(max_wr=5)))
    extended = CQEX(ctx, CqInitAttrEx(cqe=5, comp_mask=e.IBV_CQ_INIT_ATTR_MASK_PD, parent_domain=parent))
    qp = QP(parent, QPInitAttr(scq=cq, rcq=cq, cap=QPCap(5, 5)))
    assert len(set(allocators.given.values())) == 3  # a type for each of them
    address = AHAttr(port_num=1, is_global=1, gr=GlobalRoute(dgid=ctx.query_gid(1, 1), sgid_index=1))
    mr, window, handle = MR(parent, 100, 1), MW(parent, 1), AH(parent, attr=address)
    assert mr.read(1, 0) == b"\0"
    for each in (qp, srq, extended, mr, window, handle):
        each.close()
    assert not allocators.given
    qp = QP(parent, QPInitAttr(scq=cq, rcq=cq, cap=QPCap(5, 5)))
    pd.close()  # with the parent domain, and what was made in that
    assert not allocators.given
    with pytest.raises(PyverbsError, match="closed"):
        assert qp.qp_num


@pytest.mark.parametrize("answer", [0, 8], ids=["nothing", "misaligned"])
def test_an_allocator_that_gives_nothing_usable(pd: PD, ctx: Context, cq: CQ, answer: int) -> None:
    allocators = Allocators(pd, answer)
    allocators.given[8] = 1  # what is refused is given back
    parent = ParentDomain(ctx, ParentDomainInitAttr(pd, allocators.context))
    if answer:
        allocators.context = ParentDomainContext(pd, lambda *_: 8, lambda *args: allocators.asked.append(args[2]))
        parent = ParentDomain(ctx, ParentDomainInitAttr(pd, allocators.context))
    with pytest.raises(PyverbsRDMAError, match="allocator") as caught:
        QP(parent, QPInitAttr(scq=cq, rcq=cq, cap=QPCap(5, 5)))
    assert caught.value.error_code == errno.ENOMEM
    assert allocators.asked == ([8] if answer else [1])


def test_an_allocator_may_leave_it_to_the_default(pd: PD, ctx: Context, cq: CQ) -> None:
    allocators = Allocators(pd, e._IBV_ALLOCATOR_USE_DEFAULT)
    parent = ParentDomain(ctx, ParentDomainInitAttr(pd, allocators.context))
    with QP(parent, QPInitAttr(scq=cq, rcq=cq, cap=QPCap(5, 5))):
        assert allocators.asked


def test_attributes_of_parent_domains(pd: PD, ctx: Context, cq: CQ) -> None:
    plain = ParentDomainInitAttr(pd)
    assert plain.comp_mask == 0
    with ParentDomain(ctx, plain) as parent, QP(parent, QPInitAttr(scq=cq, rcq=cq, cap=QPCap(5, 5))):
        pass
    with pytest.raises(PyverbsUserError):
        ParentDomainInitAttr(pd, ParentDomainContext(pd, lambda *_: 0, None))
    with pytest.raises(PyverbsRDMAError, match="Failed to allocate Parent Domain") as caught:
        ParentDomain(ctx, ParentDomainInitAttr(pd, comp_mask=1 << 20))
    assert caught.value.error_code == errno.EINVAL
    with Context(name="ffv0") as other, pytest.raises(PyverbsRDMAError) as caught:
        ParentDomain(other, plain)
    assert caught.value.error_code == errno.EINVAL
