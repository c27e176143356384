"""Carries out generated sequences of verbs calls on pyverbs or on ffverbs, and writes down all that came of them.

    python interpret.py PACKAGE DEVICE SEQUENCES RESULTS [PATIENCE]

PACKAGE is `pyverbs` or `ffverbs`. SEQUENCES holds one sequence a line, as JSON (see generate.py for the calls); one
line of RESULTS is written for each. A program of its own, without the project's modules, so that the same file runs in
the virtual machine on pyverbs 44 and on the host on ffverbs.

Completions come when they come. A sequence with "counts" (how many had come after each call in another run of it) is
waited for at each call until as many are there (but PATIENCE seconds at most); without, until nothing comes any more.
"""

import contextlib
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Call = dict[str, Any]
Piece = list[Any]

GRH_BYTES = 40
IMPATIENCE_S = 0.05  # for those after one that never came: the two runs have parted
PAUSE_S = 0.002
QUIET_S = 0.001  # nothing comes any more: no work request is under way
AT_END_S = 0.01  # for completions that the other run did not have
SUCCESS, FLUSHED = 0, 5
EX_FIELDS = 1 | 2 | 4 | 8  # of an extended queue's completions: byte_len, imm, qp_num, src_qp (ibv_create_cq_ex(3))
WITH_PD, WITH_SEND_OPS = 1, 1 << 6  # ibv_create_qp_ex(3)
# ibv_poll_cq(3): GRH tells of datagrams, immediate data and invalidated keys of receives.
ANY_FLAG, CONNECTED_FLAGS = 1 | 2 | 8, 2 | 8
INLINE = 8


class SkippedCallError(Exception):
    """An object that the call names was never made, or is closed."""


class ExtendedCompletion:
    """The completion at which an extended queue stands, in the words of the others."""

    def __init__(self, cq: Any):
        self.wr_id, self.status = cq.wr_id, int(cq.status)
        self.qp_num, self.src_qp = cq.read_qp_num(), cq.read_src_qp()
        self.opcode, self.byte_len = cq.read_opcode(), cq.read_byte_len()
        self.wc_flags, self.imm_data = cq.read_wc_flags(), cq.read_imm_data()


class Interpreter:
    """Carries out one sequence."""

    def __init__(self, modules: dict[str, Any], context: Any, gid: str, patience_s: float):
        """`modules` are the package's, `context` an open device, `gid` the text of its GID 1."""
        self.m = modules
        self.context = context
        self.events: list[int] = []
        self.gid = gid
        self.objects: dict[str, Any] = {}
        self.order: list[str] = []  # names, as they were made
        self.closed_keys: dict[str, tuple[int, int, int]] = {}  # (lkey, rkey, address) of closed regions
        self.extended: set[str] = set()  # queue pairs with the newer posting calls
        self.qp_names: dict[int, str] = {}
        self.posts: dict[int, tuple[str, list[Piece], bool]] = {}  # wr_id -> (stream, scatter list, is UD)
        self.streams: dict[str, list[dict[str, Any]]] = {}
        self.under_way: set[int] = set()  # wr_ids of sends that will complete
        self.pending_receives: dict[int, list[Piece]] = {}  # wr_id -> scatter list, undefined until it completes
        self.total = 0
        self.at = 0  # the call that is carried out
        self.patience_s = patience_s
        self.under_way_s = 0.0
        self.undefined: list[list[Any]] = []
        self.memory: dict[str, str] = {}

    # ---- names ----------------------------------------------------------------------------------------------------

    def get(self, name: str | None) -> Any:
        if name is None:
            return None
        if name not in self.objects:
            raise SkippedCallError(name)
        return self.objects[name]

    def add(self, name: str, value: Any) -> None:
        self.objects[name] = value
        self.order.append(name)

    def keys(self, name: str) -> tuple[int, int, int]:
        """Return (lkey, rkey, address) of a region, of a closed one too."""
        if name in self.closed_keys:
            return self.closed_keys[name]
        mr = self.get(name)
        return mr.lkey, mr.rkey, mr.buf

    # ---- making objects -------------------------------------------------------------------------------------------

    def do_pd(self, call: Call) -> Any:
        self.add(call["name"], self.m["pd"].PD(self.context))

    def do_cq(self, call: Call) -> Any:
        q = self.m["cq"]
        if call.get("ex"):
            self.add(call["name"], q.CQEX(self.context, q.CqInitAttrEx(cqe=call["cqe"], wc_flags=EX_FIELDS)))
        else:
            self.add(call["name"], q.CQ(self.context, call["cqe"], None, None, call.get("vector", 0)))

    def do_mr(self, call: Call) -> Any:
        mr = self.m["mr"].MR(self.get(call["pd"]), call["length"], call["access"])
        self.add(call["name"], mr)
        fill = bytes((call["fill"] + i * 7) & 255 for i in range(251))
        mr.write((fill * (call["length"] // 251 + 1))[: call["length"]], call["length"])

    def do_srq(self, call: Call) -> Any:
        attr = self.m["srq"].SrqAttr(call["wr"], call["sge"], call.get("limit", 0))
        self.add(call["name"], self.m["srq"].SRQ(self.get(call["pd"]), self.m["srq"].SrqInitAttr(attr)))

    def do_modify_srq(self, call: Call) -> Any:
        attr = self.m["srq"].SrqAttr(call.get("wr", 100), 1, call.get("limit", 0))
        self.get(call["name"]).modify(attr, call["mask"])

    def do_query_srq(self, call: Call) -> Any:
        return self.get(call["name"]).query().srq_limit

    def do_qp(self, call: Call) -> Any:
        q = self.m["qp"]
        values = {
            "qp_type": call["type"],
            "scq": self.get(call["scq"]),
            "rcq": self.get(call["rcq"]),
            "srq": self.get(call.get("srq")),
            "cap": q.QPCap(*call["cap"]),
            "sq_sig_all": call.get("sig_all", 0),
        }
        pd = self.get(call["pd"])
        if "ops" in call:
            values.update(pd=pd, comp_mask=WITH_PD | WITH_SEND_OPS, send_ops_flags=call["ops"])
            qp = q.QPEx(self.context, q.QPInitAttrEx(**values))
            self.extended.add(call["name"])
        else:
            qp = q.QP(pd, q.QPInitAttr(**values))
        self.add(call["name"], qp)
        self.qp_names[qp.qp_num] = call["name"]
        return qp.qp_state

    def do_ah(self, call: Call) -> Any:
        self.add(call["name"], self.m["addr"].AH(self.get(call["pd"]), attr=self.ah_attr(call)))

    def do_mw(self, call: Call) -> Any:
        self.add(call["name"], self.m["mr"].MW(self.get(call["pd"]), call["type"]))

    def ah_attr(self, call: Call) -> Any:
        a = self.m["addr"]
        route = a.GlobalRoute(dgid=a.GID(self.gid), sgid_index=call.get("sgid_index", 1), hop_limit=64)
        return a.AHAttr(port_num=call.get("port", 1), is_global=call.get("is_global", 1), gr=route)

    # ---- changing and asking --------------------------------------------------------------------------------------

    def do_modify(self, call: Call) -> Any:
        attr = self.m["qp"].QPAttr(qp_state=call["state"], cur_qp_state=call.get("cur", 0))
        for field, value in call.get("values", {}).items():
            setattr(attr, field, value)
        if "peer" in call:
            attr.dest_qp_num = self.get(call["peer"]).qp_num
        if call.get("route"):
            attr.ah_attr = self.ah_attr(call["route"])
        qp = self.get(call["name"])
        qp.modify(attr, call["mask"])
        if call["state"] == 0 and call["mask"] & 1:
            self.forget(call["name"])

    def do_query(self, call: Call) -> Any:
        attr, init = self.get(call["name"]).query(call.get("mask", 0x1FFFFF))
        fields = call.get("fields", [])
        return [int(attr.qp_state), int(init.qp_type), *(int(getattr(attr, field)) for field in fields)]

    def do_resize(self, call: Call) -> Any:
        self.get(call["name"]).resize(call["cqe"])

    def do_close(self, call: Call) -> Any:
        name = call["name"]
        value = self.get(name)
        if name.startswith("mr"):
            self.keep(name)
            self.closed_keys[name] = (value.lkey, value.rkey, value.buf)
        value.close()
        del self.objects[name]
        self.forget(name)

    def do_write(self, call: Call) -> Any:
        self.get(call["name"]).write(bytes([call["byte"]]) * call["length"], call["length"], call["offset"])

    # ---- posting --------------------------------------------------------------------------------------------------

    def sge(self, entry: Piece) -> Any:
        """[region, offset, length, change of the key] as an SGE."""
        name, offset, length, change = entry
        lkey, _, address = self.keys(name)
        return self.m["wr"].SGE(address + offset, length, (lkey ^ change) & 0xFFFFFFFF)

    def window_key(self, name: str) -> int:
        """Return the key that a window has, or would have had it been bound."""
        return int(self.m["base"].inc_rkey(self.get(name).rkey))

    def immediate(self, wr: Call) -> int:
        """Return the word that is immediate data or a key to invalidate."""
        if "invalidate" in wr:
            name, change = wr["invalidate"]
            return self.window_key(name) ^ int(change)
        return int(wr.get("imm", 0))

    def send_wr(self, wr: Call, qp_name: str) -> Any:
        sges = [self.sge(entry) for entry in wr["sg"]]
        made = self.m["wr"].SendWR(
            wr_id=wr["id"],
            opcode=wr["opcode"],
            num_sge=len(sges),
            imm_data=self.immediate(wr),
            sg=sges or None,
            send_flags=wr["flags"],
        )
        if "remote" in wr:
            name, offset, change = wr["remote"]
            if name.startswith("mw"):
                rkey, address = self.window_key(name), self.keys(wr["base"])[2]
            else:
                _, rkey, address = self.keys(name)
            rkey = (rkey ^ change) & 0xFFFFFFFF
            if "atomic" in wr:
                made.set_wr_atomic(rkey, address + offset, *wr["atomic"])
            else:
                made.set_wr_rdma(rkey, address + offset)
        if "ah" in wr:
            number = wr["qpn"] if "qpn" in wr else self.get(wr["to"]).qp_num
            made.set_wr_ud(self.get(wr["ah"]), number, wr["qkey"])
        if "bind" in wr:
            mw, mr, offset, length, access = wr["bind"]
            info = self.m["mr"].MWBindInfo(self.get(mr), self.keys(mr)[2] + offset, length, access)
            made.set_bind_wr(self.get(mw), info)
        # What a failure leaves undefined: where a READ or an atomic puts its result, and what it or a WRITE acts upon.
        spoiled = [*wr["sg"]] if wr["opcode"] in (4, 5, 6) else []
        if "remote" in wr and wr["remote"][0].startswith("mr"):
            spoiled.append([*wr["remote"][:2], sum(max(entry[2], 8) for entry in wr["sg"]), 0])
        self.posts[wr["id"]] = (qp_name + ".s", spoiled, False)
        return made

    def do_send(self, call: Call) -> Any:
        qp = self.get(call["name"])
        wrs = [self.send_wr(wr, call["name"]) for wr in call["wrs"]]
        for first, second in itertools.pairwise(wrs):
            first.next_wr = second
        ids = [wr["id"] for wr in call["wrs"]]
        if call["name"] in self.extended:
            refused = self.batch(qp, call["wrs"], call.get("abort", False))
            ids = [] if refused or call.get("abort") else ids
        else:
            # Soft-RoCE's library leaves bad_wr unset when the kernel refuses, and pyverbs follows it then.
            bad = self.m["wr"].SendWR(num_sge=0, opcode=7) if call.get("bad") else None
            refused = self.post(qp.post_send, wrs[0], bad)
        if refused:
            ids = ids[: ids.index(refused[1])] if refused[1] in ids else []
        signaled = {wr["id"] for wr in call["wrs"] if wr["flags"] & 2 or call.get("sig_all")}
        self.under_way.update(signaled.intersection(ids))
        return refused

    def do_bind(self, call: Call) -> Any:
        """Bind a window of type 1, by a call of its own."""
        m = self.m["mr"]
        mr, offset, length, access = call["bind"]
        info = m.MWBindInfo(self.get(mr), self.keys(mr)[2] + offset, length, access)
        self.posts[call["id"]] = (call["name"] + ".s", [], False)
        self.get(call["name"]).bind_mw(self.get(call["mw"]), m.MWBind(info, 2, call["id"]))
        self.under_way.add(call["id"])

    def batch(self, qp: Any, wrs: list[Call], abort: bool) -> list[Any] | None:
        """Post work requests by the newer calls; return None, or the error."""
        qp.wr_start()
        try:
            for wr in wrs:
                qp.wr_id, qp.wr_flags = wr["id"], wr["flags"]
                self.begin(qp, wr)
                self.give(qp, wr)
        except BaseException:
            qp.wr_abort()
            raise
        if abort:
            qp.wr_abort()
            return None
        try:
            qp.wr_complete()
        except Exception as error:
            return [describe(error), None]
        return None

    def begin(self, qp: Any, wr: Call) -> None:
        """Begin one work request."""
        rkey, address, imm = 0, 0, self.immediate(wr)
        if "remote" in wr:
            name, offset, change = wr["remote"]
            _, rkey, address = self.keys(name)
            rkey, address = (rkey ^ change) & 0xFFFFFFFF, address + offset
        swap = wr.get("atomic", [0, 0])
        begun: dict[int, Callable[[], None]] = {
            0: lambda: qp.wr_rdma_write(rkey, address),
            1: lambda: qp.wr_rdma_write_imm(rkey, address, imm),
            2: qp.wr_send,
            3: lambda: qp.wr_send_imm(imm),
            4: lambda: qp.wr_rdma_read(rkey, address),
            5: lambda: qp.wr_atomic_cmp_swp(rkey, address, *swap),
            6: lambda: qp.wr_atomic_fetch_add(rkey, address, swap[0]),
        }
        begun[wr["opcode"]]()

    def give(self, qp: Any, wr: Call) -> None:
        """Complete the work request begun last: its memory and its address."""
        if "ah" in wr:
            number = wr["qpn"] if "qpn" in wr else self.get(wr["to"]).qp_num
            qp.wr_set_ud_addr(self.get(wr["ah"]), number, wr["qkey"])
        sges = [self.sge(entry) for entry in wr["sg"]]
        if wr["flags"] & INLINE and len(sges) == 1:
            qp.wr_set_inline_data(sges[0].addr, sges[0].length)
        elif wr["flags"] & INLINE:
            pieces = [self.m["qp"].DataBuffer(sge.addr, sge.length) for sge in sges]
            qp.wr_set_inline_data_list(len(pieces), pieces)
        elif len(sges) == 1:
            qp.wr_set_sge(sges[0])
        else:
            qp.wr_set_sge_list(len(sges), sges)

    def post(self, function: Callable[[Any, Any], None], first: Any, bad: Any) -> list[Any] | None:
        """Post a list; return None, or the error and the wr_id of the work request at which it was."""
        try:
            function(first, bad)
        except Exception as error:
            return [describe(error), bad.wr_id if bad is not None else None]
        return None

    def do_recv(self, call: Call) -> Any:
        target = self.get(call["name"])
        wrs = []
        for wr in call["wrs"]:
            sges = [self.sge(entry) for entry in wr["sg"]]
            wrs.append(self.m["wr"].RecvWR(wr_id=wr["id"], num_sge=len(sges), sg=sges or None))
            self.posts[wr["id"]] = (call["name"] + ".r", wr["sg"], call.get("ud", False))
            self.pending_receives[wr["id"]] = wr["sg"]
        for first, second in itertools.pairwise(wrs):
            first.next_wr = second
        w = self.m["wr"]
        bad = w.RecvWR(num_sge=1, sg=[w.SGE(0, 0, 0)]) if call.get("bad") else None
        return self.post(target.post_recv, wrs[0], bad)

    # ---- completions ----------------------------------------------------------------------------------------------

    def note(self, wc: Any) -> None:
        stream, sges, is_ud = self.posts.get(wc.wr_id, ("unknown", [], False))
        status = int(wc.status)
        qp = self.qp_names.get(wc.qp_num, "?")
        entry = {"at": self.at, "wr_id": wc.wr_id, "status": status, "qp": qp}
        if status == SUCCESS:
            flags = int(wc.wc_flags) & (ANY_FLAG if is_ud else CONNECTED_FLAGS) if stream.endswith(".r") else 0
            entry.update(opcode=int(wc.opcode), byte_len=wc.byte_len, flags=flags)
            if flags & 2:
                entry["imm"] = wc.imm_data
            if is_ud:
                entry["src"] = self.qp_names.get(wc.src_qp, "?")
                self.undefine(sges, GRH_BYTES)
        elif status != FLUSHED or not stream.endswith(".r"):
            self.undefine(sges, 1 << 40)
        self.streams.setdefault(stream, []).append(entry)
        self.under_way.discard(wc.wr_id)
        self.pending_receives.pop(wc.wr_id, None)
        self.total += 1

    def undefine(self, sges: list[Piece], length: int) -> None:
        """Note that the first `length` bytes of a scatter list hold what nobody promises."""
        for name, offset, size, _ in sges:
            n = min(size, length)
            if n:
                self.undefined.append([name, offset, n])
            length -= n

    def poll(self) -> bool:
        came = False
        for name in list(self.objects):
            if name.startswith("cq"):
                wcs = list(self.take(self.objects[name]))
                came = came or bool(wcs)
                for wc in wcs:
                    self.note(wc)
        return came

    def take(self, cq: Any) -> Iterator[Any]:
        """Yield what a completion queue holds, of either kind."""
        if not hasattr(cq, "start_poll"):
            number, wcs = cq.poll(16)
            yield from wcs[:number]
            return
        # One by one: Soft-RoCE's library skips an entry that has not come when the last poll_next() found none.
        while cq.start_poll(self.m["cq"].PollCqAttr()) == 0:
            completion = ExtendedCompletion(cq)
            cq.end_poll()
            yield completion

    def take_events(self) -> None:
        """Note the asynchronous events that have come."""
        while True:
            try:
                event = self.context.get_async_event()
            except self.m["pyverbs_error"].PyverbsError:
                return
            self.events.append(int(event.event_type))
            event.ack()

    def forget(self, name: str) -> None:
        """What is under way in this queue pair will not complete."""
        self.under_way = {wr_id for wr_id in self.under_way if self.posts[wr_id][0] != name + ".s"}

    def settle(self, expected: int | None) -> None:
        """Poll until `expected` completions came in all, or, if that is None, until none come any more."""
        last = began = time.monotonic()
        while True:
            now = time.monotonic()
            if self.poll():
                last = now
                continue
            if expected is not None:
                if self.total >= expected:
                    return
                if now - began > self.patience_s:
                    self.patience_s = IMPATIENCE_S
                    return
            elif now - last > (self.under_way_s if self.under_way else QUIET_S):
                return
            time.sleep(PAUSE_S)

    # ---- the whole ------------------------------------------------------------------------------------------------

    def keep(self, name: str) -> None:
        mr = self.objects[name]
        self.memory[name] = mr.read(mr.length, 0).hex()

    def call(self, call: Call) -> Any:
        try:
            return getattr(self, "do_" + call["do"])(call)
        except SkippedCallError as error:
            return ["skipped", str(error)]
        except Exception as error:
            return describe(error)

    def run(self, sequence: Call) -> dict[str, Any]:
        results: list[Any] = []
        counts: list[int] = []
        began = time.monotonic()
        expected = sequence.get("counts")
        self.under_way_s = sequence["under_way_s"]
        self.take_events()
        self.events.clear()  # those of the sequence before
        for index, call in enumerate(sequence["calls"]):
            self.at = index
            results.append(self.call(call))
            if call["do"] in ("send", "recv", "modify", "close", "bind"):
                self.settle(expected[index] if expected else None)
            counts.append(self.total)
        if expected:
            time.sleep(AT_END_S)
            self.poll()
        self.take_events()
        # Asked for: libibverbs' own copy is of when it was last asked.
        names = [name for name in self.order if is_qp(name, self.objects)]
        states = {name: int(self.objects[name].query(1)[0].qp_state) for name in names}
        for name in self.objects:
            if name.startswith("mr"):
                self.keep(name)
        for sges in self.pending_receives.values():
            self.undefine(sges, 1 << 40)
        self.tear_down()
        return {
            "seed": sequence["seed"],
            "took_s": round(time.monotonic() - began, 3),
            "results": results,
            "counts": counts,
            "streams": self.streams,
            "states": states,
            "events": sorted(self.events),
            "memory": self.memory,
            "undefined": self.undefined,
        }

    def tear_down(self) -> None:
        """Close what is left, users before what they use (a bound window holds Soft-RoCE's queue pair)."""
        for kind in ("mw", "qp", "srq", "ah", "mr", "cq", "pd"):
            for name in [n for n in self.objects if n.startswith(kind)]:
                self.objects.pop(name).close()


def is_qp(name: str, objects: dict[str, Any]) -> bool:
    return name.startswith("qp") and name in objects


def describe(error: Exception) -> list[Any]:
    """Return an exception as [class, error code]."""
    return [type(error).__name__, getattr(error, "error_code", None)]


def async_fd(package: str, context: Any) -> int:
    """Return the descriptor of the context's asynchronous events, which pyverbs does not show."""
    if package == "ffverbs":
        return int(importlib.import_module("ffverbs._native").lib.ffv_async_fd(context._live()))
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            if "infinibandevent" in os.readlink(f"/proc/self/fd/{fd}"):
                return int(fd)
    raise RuntimeError("the context has no descriptor for asynchronous events")


def main(package: str, device: str, source: str, target: str, patience: str = "1") -> None:
    """Carry out all sequences of a file."""
    names = ("addr", "base", "cq", "device", "mr", "pd", "pyverbs_error", "qp", "srq", "wr")
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    with (
        modules["device"].Context(name=device) as context,
        open(source, encoding="ascii") as sequences,
        open(target, "w", encoding="ascii") as out,
    ):
        gid = str(context.query_gid(1, 1))
        os.set_blocking(async_fd(package, context), False)
        for line in sequences:
            out.write(json.dumps(Interpreter(modules, context, gid, float(patience)).run(json.loads(line))) + "\n")
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
