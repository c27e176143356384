"""Parameters and addresses of the connection manager: their values, text and limits are those of pyverbs 44."""

from typing import Any

import pytest

import ffverbs.librdmacm_enums as ce
from ffverbs.cmid import CMID, AddrInfo, CMEvent, ConnParam, JoinMCAttrEx, UDParam
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError

TEXT = """Connection parameters: 
responder resources: 2   
initiator depth: 3   
flow control: 1   
retry count: 6   
rnr retry count: 7   
srq : 0   
qp number: 4660
"""  # noqa: W291 - the columns are padded


def test_parameters_as_text() -> None:
    assert str(ConnParam(2, 3, 1, 6, 7, 0, 0x1234)) == TEXT


def test_defaults() -> None:
    param = ConnParam()
    assert (param.qpn, param.private_data) == (0, b"")
    assert "retry count: 5   \nrnr retry count: 5   \n" in str(param)
    param.qpn = 7
    assert param.qpn == 7


@pytest.mark.parametrize(
    ("room", "data", "kept"),
    [(4, b"abcdef", b"abcd"), (4, b"ab", b"ab"), (0, b"ab", b""), (10, b"ab", b"ab"), (3, bytearray(b"xyz"), b"xyz")],
)
def test_private_data_fits_the_room(room: int, data: bytes, kept: bytes) -> None:
    param = ConnParam(data_len=room)
    param.set_private_data(data)
    assert param.private_data == kept


def test_private_data_is_replaced() -> None:
    param = ConnParam(data_len=6)
    param.set_private_data(b"longer")
    param.set_private_data(b"no")
    assert param.private_data == b"no"


@pytest.mark.parametrize("data", ["text", 5, None])
def test_private_data_is_bytes(data: Any) -> None:
    with pytest.raises(TypeError):
        ConnParam(data_len=4).set_private_data(data)


@pytest.mark.parametrize("field", ["resources", "depth", "flow_control", "retry", "rnr_retry", "srq", "data_len"])
def test_bytes_are_bytes(field: str) -> None:
    for value in (-1, 256):
        with pytest.raises(OverflowError):
            ConnParam(**{field: value})


def address(struct: Any) -> bytes:
    return bytes(bytearray(ce_bytes(struct)))


def ce_bytes(pointer: Any) -> Any:
    from ffverbs._native import ffi  # noqa: PLC0415 - only this check looks behind the class

    return ffi.buffer(ffi.cast("uint8_t *", pointer), 16)


def test_addresses() -> None:
    passive = AddrInfo(src="127.0.0.1", src_service="7471", port_space=ce.RDMA_PS_UDP, flags=ce.RAI_PASSIVE)
    assert (passive._c.port_space, passive._c.qp_type) == (ce.RDMA_PS_UDP, 4)
    assert address(passive._c.src_addr)[2:8] == b"\x1d\x2f\x7f\0\0\1"
    both = AddrInfo(src="127.0.0.2", dst="127.0.0.1", dst_service="99")
    assert (both._c.port_space, both._c.qp_type) == (ce.RDMA_PS_TCP, 2)
    assert address(both._c.src_addr)[2:8] == b"\0\0\x7f\0\0\2"
    assert address(both._c.dst_addr)[2:8] == b"\0\x63\x7f\0\0\1"
    both.get_addrinfo(dst="::1")
    assert both._c.dst_len == 28
    both.close()
    both.close()
    with pytest.raises(PyverbsError, match="closed"):
        CMID(both)


def test_joining() -> None:
    group = AddrInfo(src="230.0.0.1")
    attr = JoinMCAttrEx(group, 3, 1)
    assert (attr.comp_mask, attr.join_flags) == (3, 1)
    attr.comp_mask, attr.join_flags = 1, 0
    assert (attr.comp_mask, attr.join_flags) == (1, 0)
    with pytest.raises(OverflowError):
        attr.join_flags = -1


@pytest.mark.parametrize("make", [JoinMCAttrEx, UDParam, CMEvent])
def test_wrong_types(make: Any) -> None:
    for wrong in (None, 5, "text"):
        with pytest.raises(TypeError):
            make(wrong)


def test_what_an_id_is_made_of() -> None:
    with pytest.raises(PyverbsRDMAError, match="Cannot create CM ID from <class 'int'>"):
        CMID(5)  # type: ignore[arg-type]
    make: Any = CMID
    for keyword in ("qp_init_attr", "pd", "listen_id"):
        with pytest.raises(TypeError):
            make(**{keyword: 5})
    nothing = CMID()
    assert (nothing.context, nothing.pd, nothing.event_channel) == (None, None, None)
    with pytest.raises(PyverbsError, match="closed"):
        assert nothing.qpn
    nothing.close()
