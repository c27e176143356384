"""Enumerations of the efa driver: a table of facts, so that programs that mention them can be imported."""

from typing import Final as _Final

EFADV_DEVICE_ATTR_CAPS_RDMA_READ: _Final = 1 << 0
EFADV_DEVICE_ATTR_CAPS_CQ_WITH_SGID: _Final = 1 << 2
EFADV_QP_DRIVER_TYPE_SRD: _Final = 0
EFADV_WC_EX_WITH_SGID: _Final = 1 << 0
