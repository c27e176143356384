"""Raw packet queue pairs and flow steering: a frame comes to the queue pairs whose rules say so, wherever they are."""

import socket
import struct

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import Options, Pair, Recv, Send

RAW = int(e.IBV_QPT_RAW_PACKET)
DST, SRC = "01:50:56:19:20:a7", "24:8a:07:a5:28:c8"
FRAME_MAX = 9018


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def udp_frame(length: int, dst_port: int = 5678, dst: str = DST) -> bytes:
    payload = bytes(n * 7 % 251 for n in range(length - 42))
    udp = struct.pack("!4H", 1234, dst_port, 8 + len(payload), 0)
    addresses = socket.inet_aton("1.1.1.1") + socket.inet_aton("2.2.2.2")
    ip = struct.pack("!2B3H2BH", 0x45, 0, 20 + 8 + len(payload), 0, 0x4000, 64, 17, 0) + addresses
    return mac(dst) + mac(SRC) + b"\x08\x00" + ip + udp + payload


def options() -> Options:
    return Options(RAW, length=1 << 16)


ETH = ("EthSpec", {"dst_mac": DST, "ether_type": 0x800})
UDP = ("TcpUdpSpec", {"spec_type": int(e.IBV_FLOW_SPEC_UDP), "dst_port": 5678})


@pytest.mark.parametrize("place", [16384, 16384 + 13], ids=["whole", "odd"])
def test_frames_are_steered(pair: Pair, place: int) -> None:
    pair.connect(options())
    pair.b.steer([ETH, UDP])
    for wr_id, length in enumerate((42, 60, 1514, 4096, FRAME_MAX)):
        frame = udp_frame(length)
        pair.a.write(udp_frame(length, 1))
        pair.b.post_recv(Recv(wr_id, ((place, 100), (place + 100, 9000))))
        pair.a.post_send(Send(3, pieces=((0, length),)))  # of no interest to anybody
        assert pair.a.sent()[0].ok
        pair.a.write(frame)
        pair.a.post_send(Send(4, pieces=((0, 20), (20, length - 20))))
        (sent,), (received,) = pair.a.sent(), pair.b.received()
        assert (sent.wr_id, sent.status, sent.opcode) == (4, e.IBV_WC_SUCCESS, e.IBV_WC_SEND)
        assert (received.wr_id, received.status, received.opcode) == (wr_id, e.IBV_WC_SUCCESS, e.IBV_WC_RECV)
        assert (received.byte_len, received.qp_num, received.src_qp) == (length, pair.to_b.qpn, 0)
        assert pair.b.read(length, place) == frame


def test_everybody_with_a_rule_gets_it(apart: Pair) -> None:
    apart.connect(options())
    for side in (apart.a, apart.b):
        side.steer([ETH])
        side.post_recv(Recv(1, ((16384, 9018),)))
    frame = udp_frame(600)
    apart.a.write(frame)
    apart.a.post_send(Send(2, pieces=((0, 600),)))
    assert apart.a.sent()[0].ok
    for side in (apart.a, apart.b):
        assert [(done.wr_id, done.byte_len) for done in side.received()] == [(1, 600)]
        assert side.read(600, 16384) == frame


def test_nobody_gets_it_without_a_rule_or_a_receive(apart: Pair) -> None:
    apart.connect(options())
    apart.a.write(udp_frame(100))
    apart.b.post_recv(Recv(1, ((16384, 9018),)))
    if not apart.elsewhere:  # from another host it may still be under way when there is one
        apart.a.post_send(Send(1, pieces=((0, 100),)))  # before there is a rule
        assert apart.a.sent()[0].ok
    apart.b.steer([ETH])
    assert apart.b.poll_now("recv") == []
    apart.a.post_send(*(Send(n, pieces=((0, 60 + n),)) for n in range(2, 4)))
    assert all(done.ok for done in apart.a.sent(2))
    assert [(done.wr_id, done.byte_len) for done in apart.b.received()] == [(1, 62)]
    apart.b.stop_steering()  # after what was on the way: the second one, for which there was no receive
    apart.b.post_recv(Recv(2, ((16384, 9018),)))
    apart.b.steer([ETH])
    apart.a.post_send(Send(5, pieces=((0, 65),)))
    assert [(done.wr_id, done.byte_len) for done in apart.b.received()] == [(2, 65)]


@pytest.mark.parametrize("length", [13, FRAME_MAX + 1])
def test_what_is_no_frame_is_an_error(here: Pair, length: int) -> None:
    here.connect(options())
    here.a.post_send(Send(1, pieces=((0, length),)))
    assert here.a.sent()[0].status == e.IBV_WC_LOC_LEN_ERR
    assert here.a.state() == e.IBV_QPS_ERR


def test_too_small_a_buffer(apart: Pair) -> None:
    apart.connect(options())
    apart.b.steer([ETH])
    apart.b.post_recv(Recv(1, ((16384, 99),)), Recv(2, ((16384, 9018),)))
    apart.a.write(udp_frame(100))
    apart.a.post_send(Send(1, pieces=((0, 100),)))
    assert apart.a.sent()[0].ok
    assert [(d.wr_id, d.status) for d in apart.b.received(2)] == [(1, e.IBV_WC_LOC_LEN_ERR), (2, e.IBV_WC_WR_FLUSH_ERR)]


def test_sniffers_and_defaults(here: Pair) -> None:
    here.connect(options())
    here.b.steer([], flow_type=int(e.IBV_FLOW_ATTR_MC_DEFAULT))
    here.b.post_recv(Recv(1, ((16384, 9018),)))
    for dst, length in (("02:00:00:00:00:01", 70), (DST, 71)):
        here.a.write(udp_frame(length, dst=dst))
        here.a.post_send(Send(1, pieces=((0, length),)))
    assert [(done.wr_id, done.byte_len) for done in here.b.received()] == [(1, 71)]
    here.a.steer([], flow_type=int(e.IBV_FLOW_ATTR_SNIFFER))
    here.a.post_recv(Recv(2, ((16384, 9018),)))
    here.b.write(udp_frame(80, dst="02:00:00:00:00:01"))
    here.b.post_send(Send(1, pieces=((0, 80),)))
    assert [(done.wr_id, done.byte_len) for done in here.a.received()] == [(2, 80)]


def test_checksums_of_the_device(apart: Pair) -> None:
    apart.connect(options())
    apart.b.steer([ETH])
    apart.a.write(udp_frame(333))
    flags = int(e.IBV_SEND_SIGNALED)
    for wr_id, with_checksums in enumerate((0, int(e.IBV_SEND_IP_CSUM))):
        apart.b.post_recv(Recv(wr_id, ((16384, 9018),)))
        apart.a.post_send(Send(1, pieces=((0, 333),), flags=flags | with_checksums))
        (done,) = apart.b.received()
        assert done.flags == (e.IBV_WC_IP_CSUM_OK if with_checksums else 0)
    ip, udp = apart.b.read(20, 16384 + 14), apart.b.read(333 - 34, 16384 + 34)
    assert rfc1071(ip) == 0
    assert rfc1071(ip[12:20] + struct.pack("!2H", 17, len(udp)) + udp) == 0


def rfc1071(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
