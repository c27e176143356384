"""Vendor modules: every name is there, and using one says EOPNOTSUPP."""

import errno
import importlib
import importlib.util
import json
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import ffverbs.providers
from ffverbs.providers._vendor import VendorObject, refuse
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.unit.real_pyverbs import evaluate

MODULES = [
    info.name
    for info in pkgutil.walk_packages(ffverbs.providers.__path__, "ffverbs.providers.")
    if not info.ispkg and not info.name.endswith("._vendor")
]

# What rdma-core's tests import from drivers (versions 44 to 65).
IMPORTED = {
    "mlx5.mlx5dv": "Mlx5CQ Mlx5Context Mlx5Cqe64 Mlx5DCIStreamInitAttr Mlx5DVCQInitAttr Mlx5DVContextAttr "
    "Mlx5DVDCInitAttr Mlx5DVQPInitAttr Mlx5DevxObj Mlx5QP Mlx5UAR Mlx5UMEM Wqe WqeCtrlSeg WqeDataSeg",
    "mlx5.mlx5dv_objects": "Mlx5DvObj",
    "mlx5.mlx5_enums": "MLX5_CQE_INVALID MLX5_CQE_REQ MLX5_CQE_REQ_ERR MLX5_CQE_RESP_ERR MLX5_CQE_RESP_SEND_IMM "
    "MLX5_OPCODE_SEND_IMM MLX5_RCV_DBR MLX5_SEND_WQE_BB MLX5_SEND_WQE_SHIFT MLX5_SND_DBR MLX5_WQE_CTRL_CQ_UPDATE "
    "_MLX5DV_UAR_ALLOC_TYPE_NC mlx5dv_context_attr_comp_mask mlx5dv_context_attr_flags mlx5dv_dc_type "
    "mlx5dv_obj_type mlx5dv_qp_init_attr_mask",
    "efa.efadv": "EfaCQ",
    "efa.efa_enums": "",
}


@pytest.mark.parametrize(("module", "names"), list(IMPORTED.items()))
def test_the_names_that_programs_import(module: str, names: str) -> None:
    imported = importlib.import_module(f"ffverbs.providers.{module}")
    for name in names.split():
        assert hasattr(imported, name), name


@pytest.mark.parametrize("name", MODULES)
def test_everything_of_a_driver_is_refused(name: str) -> None:
    module = importlib.import_module(name)
    used: list[Callable[..., Any]] = [
        value for value in vars(module).values() if isinstance(value, type) and issubclass(value, VendorObject)
    ]
    used += [method for cls in used for method in vars(cls).values() if method is refuse]
    used += [value for value in vars(module).values() if value is refuse]
    assert used or name.endswith("_enums")
    for use in used:
        with pytest.raises(PyverbsRDMAError, match="needs a vendor's hardware") as caught:
            use("any", argument=1)
        assert caught.value.error_code == errno.EOPNOTSUPP


def test_derived_classes_are_refused_too() -> None:
    from ffverbs.providers.mlx5.mlx5dv import Mlx5QP

    class Mine(Mlx5QP):
        pass

    with pytest.raises(PyverbsRDMAError, match=r"Mine needs .*Errno: 95, Operation not supported"):
        Mine(None)
    with pytest.raises(PyverbsRDMAError):
        Mlx5QP.modify_lag_port(None, 1)


REAL = """
import glob, importlib, json, os, pyverbs.base
root = pyverbs.base.__file__.rsplit("/", 1)[0] + "/providers"
found = {}
for path in glob.glob(root + "/*/*.so"):
    name = path[len(root) + 1:].split(".")[0].replace("/", ".")
    module = importlib.import_module("pyverbs.providers." + name)
    found[name] = {
        n: (int(v) if isinstance(v, int) else None)
        for n, v in vars(module).items()
        if not n.startswith("__")
        and (
            isinstance(v, int)
            or hasattr(v, "__members__")
            or (isinstance(v, type) and v.__module__ == module.__name__)
            or n.endswith("_to_str")
        )
    }
"""


def test_every_module_name_and_value_of_the_real_one_is_here() -> None:
    (found,) = evaluate(REAL, "found")
    assert len(found) > 10, json.dumps(found)
    for module, names in found.items():
        here = importlib.import_module(f"ffverbs.providers.{module}")
        for name, value in names.items():
            assert hasattr(here, name), (module, name)
            if value is not None:
                assert getattr(here, name) == value, (module, name)
