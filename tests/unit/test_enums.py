"""Enumerations: how they behave, and that names and values are those of pyverbs."""

import copy
import enum
import pickle

import pytest

import ffverbs.cm_enums
import ffverbs.enums
import ffverbs.libibverbs_enums as e
import ffverbs.librdmacm_enums as ce
from ffverbs._enum import VerbsEnum
from tests.unit.real_pyverbs import evaluate

CLASSES = [c for m in (e, ce) for c in vars(m).values() if isinstance(c, type) and c is not VerbsEnum]

NAMES = """
import {module} as m
enums = {{n: c for n, c in vars(m).items() if hasattr(c, "__members__")}}
classes = {{n: {{k: int(v) for k, v in c.__members__.items()}} for n, c in enums.items()}}
names = {{n: int(v) for n, v in vars(m).items() if isinstance(v, int) and not n.startswith("__")}}
"""


@pytest.mark.parametrize(("module", "ours"), [("pyverbs.enums", e), ("pyverbs.cm_enums", ce)])
def test_all_names_and_values_of_the_real_one_are_here(module: str, ours: object) -> None:
    classes, names = evaluate(NAMES.format(module=module), "classes", "names")
    assert len(names) > 25
    for name, value in names.items():
        assert getattr(ours, name) == value, name
    for name, members in classes.items():
        here = {k: int(v) for k, v in getattr(ours, name).__members__.items()}
        assert members.items() <= here.items(), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IBV_QPT_RC", 2),
        ("IBV_QPS_ERR", 6),
        ("IBV_WC_RNR_RETRY_EXC_ERR", 13),
        ("IBV_WC_RECV_RDMA_WITH_IMM", 129),
        ("IBV_ACCESS_RELAXED_ORDERING", 1 << 20),
        ("IBV_TRANSPORT_UNKNOWN", -1),
        ("IBV_QPT_DRIVER", 255),
        ("IBV_LINK_LAYER_ETHERNET", 2),
        ("_IBV_ALLOCATOR_USE_DEFAULT", 2**64 - 1),
        ("_IBV_DEVICE_RAW_SCATTER_FCS", 1 << 34),
        ("IBV_WC_STANDARD_FLAGS", 0x7F),
        ("IBV_FORK_UNNEEDED", 2),
    ],
)
def test_values(name: str, value: int) -> None:
    assert getattr(e, name) == value
    assert getattr(ffverbs.enums, name) is getattr(e, name)


def test_the_old_modules_have_every_name() -> None:
    for new, old in ((e, ffverbs.enums), (ce, ffverbs.cm_enums)):
        missing = {name for name in vars(new) if not name.startswith("__")} - set(vars(old))
        assert missing <= {"_Final", "_VerbsEnum"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
def test_iteration_and_globals(cls: type[VerbsEnum]) -> None:
    module = e if cls.__module__.endswith("libibverbs_enums") else ce
    assert [member.name for member in cls] == list(cls.__members__)
    assert len(cls) == len(list(cls)) == len(list(reversed(cls)))
    assert issubclass(cls, enum.IntFlag)
    for name, member in cls.__members__.items():
        assert getattr(module, name) is member
        assert str(member) == f"{member}" == str(int(member))
        assert cls(int(member)) is member


def test_unknown_values_are_accepted() -> None:
    assert e.ibv_wc_status(77) == 77
    assert str(e.ibv_wc_status(77)) == "77"
    assert e.ibv_access_flags(3) == e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE


def test_operators_keep_all_bits() -> None:
    assert ~e.IBV_ACCESS_LOCAL_WRITE == -2
    assert (1 << 40 | 1) & ~e.IBV_ACCESS_LOCAL_WRITE == 1 << 40
    assert e.IBV_ACCESS_LOCAL_WRITE | 1 << 40 == 1 << 40 | 1
    assert e.IBV_QP_STATE ^ e.IBV_QP_PORT == 33


def test_members_survive_pickle_and_copy() -> None:
    for member in (e.IBV_QPT_RC, e.IBV_TRANSPORT_UNKNOWN, ce.RDMA_PS_TCP):
        assert pickle.loads(pickle.dumps(member)) is member
        assert copy.deepcopy(member) is member
