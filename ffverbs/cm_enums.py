"""`librdmacm_enums` under the name that it has in pyverbs 44."""

from ffverbs.librdmacm_enums import *  # noqa: F403
