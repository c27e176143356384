"""Exceptions of the package, with the classes, texts and attributes of `pyverbs.pyverbs_error`."""

import os

__all__ = ["PyverbsError", "PyverbsRDMAError", "PyverbsUserError"]

_NO_CODE = -1


class PyverbsError(Exception):
    """Base of all errors; `error_code` is an errno value whose description becomes part of the text (-1: none)."""

    def __init__(self, msg: str, error_code: int = _NO_CODE) -> None:
        if error_code != _NO_CODE:
            msg = f"{msg}. Errno: {error_code}, {os.strerror(error_code)}"
        super().__init__(msg)


class PyverbsRDMAError(PyverbsError):
    """A verbs call failed; `error_code` is its errno, or -1 where verbs gives none."""

    def __init__(self, msg: str, error_code: int = _NO_CODE) -> None:
        super().__init__(msg, error_code)
        self._error_code = error_code

    @property
    def error_code(self) -> int:
        """The errno of the failed call, -1 if it has none."""
        return self._error_code


class PyverbsUserError(PyverbsError):
    """The caller's mistake, found before any verbs call was made."""

    def __init__(self, msg: str) -> None:
        super().__init__(msg)
