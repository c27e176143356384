"""Exceptions: texts, codes, ancestry, and the way between processes."""

import pickle

import pytest

from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from tests.unit.real_pyverbs import evaluate, evaluate_here

PREAMBLE = "from pyverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError"
EXPRESSIONS = [
    "str(PyverbsError('a'))",
    "str(PyverbsError('a', 22))",
    "str(PyverbsError('a', error_code=0))",
    "str(PyverbsRDMAError('a'))",
    "str(PyverbsRDMAError('a', 95))",
    "str(PyverbsRDMAError('a', -22))",
    "repr(PyverbsRDMAError('a', 4095))",
    "PyverbsRDMAError('a').error_code",
    "PyverbsRDMAError('a', 16).error_code",
    "hasattr(PyverbsError('a', 16), 'error_code')",
    "hasattr(PyverbsUserError('a'), 'error_code')",
    "PyverbsUserError('a').args",
    "issubclass(PyverbsUserError, PyverbsError) and issubclass(PyverbsRDMAError, PyverbsError)",
]


def test_same_as_the_real_one() -> None:
    assert evaluate_here(PREAMBLE, *EXPRESSIONS) == evaluate(PREAMBLE, *EXPRESSIONS)


def test_literals() -> None:
    assert str(PyverbsError("Failed", 95)) == "Failed. Errno: 95, Operation not supported"
    assert str(PyverbsRDMAError("Failed")) == "Failed"
    assert PyverbsRDMAError("Failed").error_code == -1
    with pytest.raises(TypeError):
        PyverbsUserError("a", 5)  # type: ignore[call-arg]


def test_code_and_text_survive_pickle() -> None:
    error = pickle.loads(pickle.dumps(PyverbsRDMAError("Failed", 12)))
    assert (str(error), error.error_code) == ("Failed. Errno: 12, Cannot allocate memory", 12)
