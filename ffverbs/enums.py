"""`libibverbs_enums` under the name that it has in pyverbs 44."""

from ffverbs.libibverbs_enums import *  # noqa: F403
from ffverbs.libibverbs_enums import (  # noqa: F401 - names that a star does not bring
    _IBV_ADVISE_MR_ADVICE_PREFETCH,
    _IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT,
    _IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
    _IBV_ADVISE_MR_FLAG_FLUSH,
    _IBV_ALLOCATOR_USE_DEFAULT,
    _IBV_DEVICE_CC_DMA_BOUNCE,
    _IBV_DEVICE_PCI_WRITE_END_PADDING,
    _IBV_DEVICE_RAW_SCATTER_FCS,
)
