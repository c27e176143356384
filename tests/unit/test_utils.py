"""Texts: equal to pyverbs', where it is there to be asked, and to literals."""

import pytest

from ffverbs import utils
from ffverbs.pyverbs_error import PyverbsUserError
from tests.unit.real_pyverbs import evaluate, evaluate_here

PREAMBLE = "import pyverbs.utils as u\nimport pyverbs.enums as e"
EXPRESSIONS = [
    *(f"u.qp_type_to_str({n})" for n in range(12)),
    *(f"u.qp_type_to_str({n})" for n in (-1, 255, "'x'")),
    *(f"u.qp_state_to_str({n})" for n in range(8)),
    *(f"u.mtu_to_str({n})" for n in range(8)),
    *(f"u.access_flags_to_str({n})" for n in range(256)),
    *(f"u.mig_state_to_str({n})" for n in range(5)),
    *(f"u.rereg_error_to_str({n})" for n in range(-7, 2)),
    "u.be64toh(0xfe80)",
    "u.be64toh(2**64 - 2)",
    "u.gid_str(0x80fe, 0x0100000000000002)",
    "u.gid_str(0, 2**64 - 1)",
    "u.gid_str_to_array('fe80:0000:0000:0000:0123:4567:89ab:CDEF')",
    # Not its text: pyverbs names the list of groups, this package the string.
    "u.gid_str_to_array('fe80::1')[0]",
    "u.qp_type_to_str(e.IBV_QPT_UD)",
    "u.qp_state_to_str(e.IBV_QPS_RTS)",
]


def test_same_as_the_real_one() -> None:
    real = evaluate(PREAMBLE, *EXPRESSIONS)
    ours = evaluate_here(PREAMBLE, *EXPRESSIONS)
    for expression, expected, actual in zip(EXPRESSIONS, real, ours, strict=True):
        if expression.endswith("[0]"):
            assert actual[0] == expected[0] == "PyverbsUserError"
        else:
            assert actual == expected, expression


def test_literals() -> None:
    assert utils.qp_type_to_str(2) == "RC"
    assert utils.qp_type_to_str(77) == "Unknown (77)"
    assert utils.qp_state_to_str(77) == "Unknown (77)"
    assert utils.mtu_to_str(5) == 4096
    assert utils.access_flags_to_str(5) == "Local write Remote read "
    assert utils.rereg_error_to_str(-1) == "IBV_REREG_MR_ERR_INPUT"
    assert utils.gid_str(0x80FE, 0x0100000000000000) == "fe80:0000:0000:0000:0000:0000:0000:0001"


@pytest.mark.parametrize(
    "text", ["", "fe80", "fe80::1", "fe80:0000:0000:0000:0000:0000:0000:000g", "+e80" + ":0000" * 7, "0" * 39]
)
def test_other_texts_are_no_gids(text: str) -> None:
    with pytest.raises(PyverbsUserError, match="Invalid GID value"):
        utils.gid_str_to_array(text)
