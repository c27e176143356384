"""What stands in for the objects of hardware drivers: programs import them, and skip when using one fails."""

import errno
from typing import NoReturn

from ffverbs.base import PyverbsCM
from ffverbs.pyverbs_error import PyverbsRDMAError

__all__ = ["VendorObject", "refuse"]


def refuse(*_args: object, **_kwargs: object) -> NoReturn:
    """Raise PyverbsRDMAError with EOPNOTSUPP, for a function or method of a driver."""
    raise PyverbsRDMAError(
        "This operation needs a vendor's hardware, which a device of ffverbs is not: use the verbs of every device",
        errno.EOPNOTSUPP,
    )


class VendorObject(PyverbsCM):
    """A class of a driver: constructing it raises PyverbsRDMAError with EOPNOTSUPP."""

    __slots__ = ()

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        raise PyverbsRDMAError(
            f"{type(self).__name__} needs a vendor's hardware, which a device of ffverbs is not: "
            "use the class that every device supports",
            errno.EOPNOTSUPP,
        )
