"""Buffers of GPUs (pyverbs.dmabuf): there is no GPU's memory here, making one raises EOPNOTSUPP."""

from errno import EOPNOTSUPP

from ffverbs.base import PyverbsCM
from ffverbs.pyverbs_error import PyverbsRDMAError

__all__ = ["DmaBuf"]


class DmaBuf(PyverbsCM):
    """A buffer allocated by a GPU's driver."""

    __slots__ = ()

    def __init__(self, size: int, gpu: int = 0, gtt: int = 0) -> None:
        raise PyverbsRDMAError(f"Failed to allocate dmabuf of size {size} on gpu {gpu}", EOPNOTSUPP)
