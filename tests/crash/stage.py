"""What the kill and the stop tests share: a survivor, a victim and a bystander, connected, with work under way.

The survivor has one completion queue, one shared receive queue and one UD queue pair for everybody, as a server has.
Slots of queue pairs: B to the bystander, V to the victim, SB and SV the same on the shared receive queue, U datagrams.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.actors import (
    ERR,
    FLUSHED,
    QP_FATAL,
    RETRY_EXCEEDED,
    SEND,
    SUCCESS,
    Actor,
    Completion,
    becomes,
    names_in,
)

PAGE = 4096
B, V, SB, SV, U = 1, 2, 3, 4, 5
# Memory regions: of the bystander's traffic; the victim's; the shared receives; the datagrams.
MR_B, MR_V, MR_S, MR_U = 1, 2, 3, 4
MESSAGE, GRH = 1024, 40
QPN_BLOCK = 16384

SENDS, RECEIVES = 3, 4
FIRST_SEND, FIRST_RECEIVE, FIRST_SHARED, FIRST_DATAGRAM = 1000, 2000, 3000, 4000
MINE, THEIRS = 77, 99  # seeds of what the survivor and the victim send
RECEIVED_AT, RECEIVE_BYTES = 300 * PAGE, 128 * PAGE


@dataclass
class Region:
    """A memory region of an actor as its peers see it."""

    address: int
    rkey: int


@dataclass
class Stage:
    """Survivor, victim and bystander, and what the tests know about them."""

    survivor: Actor
    victim: Actor
    bystander: Actor
    directory: Path
    deny_vm: bool = False
    events: int = 0
    seen: list[Completion] = field(default_factory=list)  # the survivor's, of other queue pairs than the one asked for
    qpn: dict[tuple[str, int], int] = field(default_factory=dict)
    regions: dict[tuple[str, int], Region] = field(default_factory=dict)
    turn: int = 0
    xrc: int = 0  # number of the XRC receive queue, if there is one

    # ---- making ----------------------------------------------------------------------------------------------------

    def open(self, actor: Actor) -> None:
        """Open an actor's device, with its queues; deny_vm leaves staging as the way to memory that is not mirrored."""
        if self.deny_vm:
            actor.call("deny_vm")
        actor.open()
        actor.call("cq", cq=0, cqe=1024)
        actor.call("srq", srq=0, wr=64)
        for slot in (MR_B, MR_S, MR_U):
            self.region(actor, slot, 64 * PAGE)
        self.qp(actor, U, type="ud")
        actor.call("ud", qp=U)

    def region(self, actor: Actor, slot: int, length: int) -> Region:
        """Register memory in an actor: mirrored, or, where nothing but staging shall be left, such that cannot be."""
        kind = "file" if self.deny_vm and slot != MR_B else "alloc"
        address, rkey = actor.call("mr", mr=slot, len=length, kind=kind)
        self.regions[actor.name, slot] = Region(int(address), int(rkey))
        return self.regions[actor.name, slot]

    def qp(self, actor: Actor, slot: int, **arguments: object) -> int:
        """Create a queue pair in an actor."""
        self.qpn[actor.name, slot] = actor.number("qp", qp=slot, cq=0, **arguments)
        return self.qpn[actor.name, slot]

    def connect(self, actor: Actor, to: Actor, slot: int, **arguments: object) -> None:
        """Bring a queue pair to RTS, connected with the one in the same slot of another actor."""
        actor.call("connect", qp=slot, gid=to.gid, rqpn=self.qpn[to.name, slot], **arguments)

    def pair(self, slot: int, other: Actor, **arguments: object) -> None:
        """Connect survivor and another actor by queue pairs of the same slot."""
        for actor in (self.survivor, other):
            self.qp(actor, slot, **arguments)
        self.connect(self.survivor, other, slot)
        self.connect(other, self.survivor, slot)

    def victims_pair(self) -> None:
        """Connect V of survivor and victim, with memory filled at both sides."""
        for actor, seed in ((self.survivor, MINE), (self.victim, THEIRS)):
            self.region(actor, MR_V, 1024 * PAGE)
            actor.call("fill", mr=MR_V, off=0, len=256 * PAGE, seed=seed)
            self.qp(actor, V)
        self.connect(self.survivor, self.victim, V)
        # The survivor is not to try again by its timer while the victim is on its way to the point.
        self.connect(self.victim, self.survivor, V, rnr_timer=31)

    def outstanding(self, **send: object) -> None:
        """Post sends (that nobody receives, if `send` says nothing else) and receives on the survivor's V."""
        sends = {"op": SEND, "len": MESSAGE, **send}
        self.survivor.call("send", qp=V, id=FIRST_SEND, n=SENDS, mr=MR_V, off=0, **sends)
        self.survivor.call(
            "recv", qp=V, id=FIRST_RECEIVE, n=RECEIVES, mr=MR_V, off=RECEIVED_AT, step=RECEIVE_BYTES, len=RECEIVE_BYTES
        )

    # ---- traffic with the bystander --------------------------------------------------------------------------------

    def exchange(self, rounds: int = 2) -> None:
        """Send from survivor to bystander and back, and check every byte and completion."""
        for _ in range(rounds):
            for sender, receiver in ((self.survivor, self.bystander), (self.bystander, self.survivor)):
                self.turn += 1
                self.send_checked(sender, receiver, self.turn)

    def send_checked(self, sender: Actor, receiver: Actor, seed: int) -> None:
        """Send one message over the B pair; nothing but its two completions may appear."""
        receiver.call("recv", qp=B, id=seed, mr=MR_B, off=0, len=MESSAGE)
        sender.call("fill", mr=MR_B, off=PAGE, len=MESSAGE, seed=seed)
        sender.call("send", qp=B, id=seed, op=SEND, mr=MR_B, off=PAGE, len=MESSAGE)
        for actor in (receiver, sender):
            got = self.next_of(actor, self.qpn[actor.name, B])
            assert (got.wr_id, got.status) == (seed, SUCCESS), (actor.name, got)
        assert receiver.number("check", mr=MR_B, off=0, len=MESSAGE, seed=seed) == -1

    def next_of(self, actor: Actor, qpn: int) -> Completion:
        """The next completion of one queue pair; what others have meanwhile is kept in `seen` (the survivor only)."""
        while True:
            got = actor.wait(1, events=self.events)
            assert got.entries, f"{actor.name} got no completion of QP {qpn:#x}"
            if got.entries[0].qpn == qpn:
                return got.entries[0]
            assert actor is self.survivor, got
            self.seen += got.entries

    def gather(self, actor: Actor, qpn: int, n: int) -> None:
        """Wait until n completions of a queue pair are in `seen`."""
        while sum(each.qpn == qpn for each in self.seen) < n:
            self.seen.append(self.next_of(actor, qpn))

    def share_with_bystander(self, scenario: str) -> None:
        """Let the bystander send to the queue that it shares with the victim, if this scenario has one."""
        survivor, bystander = self.survivor, self.bystander
        if scenario.startswith("shared") or (scenario.startswith("xrc") and self.xrc):
            bystander.call("send", qp=SB, id=7, op=SEND, mr=MR_S, off=0, len=MESSAGE, srqn=self.xrc)
            assert self.next_of(survivor, self.qpn[survivor.name, SB]).status == SUCCESS
            assert self.next_of(bystander, self.qpn[bystander.name, SB]).status == SUCCESS
        if scenario.startswith("datagrams"):
            qpn = self.qpn[survivor.name, U]
            bystander.call("send", qp=U, id=7, op=SEND, mr=MR_U, off=0, len=MESSAGE, ah=0, rqpn=qpn)
            sources = []
            while self.qpn[bystander.name, U] not in sources:
                got = self.next_of(survivor, qpn)
                assert got.status == SUCCESS, got
                sources.append(got.src_qp)
            assert self.next_of(bystander, self.qpn[bystander.name, U]).status == SUCCESS

    # ---- checks ----------------------------------------------------------------------------------------------------

    def check_flushed(self, got: "tuple[Completion, ...] | list[Completion]") -> None:
        """Every work request of V ended once, in order, successes before flushes, with the right bytes."""
        mine = [each for each in got if each.qpn == self.qpn[self.survivor.name, V]]
        sends = [each for each in mine if each.wr_id < FIRST_RECEIVE]
        receives = [each for each in mine if each.wr_id >= FIRST_RECEIVE]
        assert ids(sends) == list(range(FIRST_SEND, FIRST_SEND + SENDS)), got
        assert ids(receives) == list(range(FIRST_RECEIVE, FIRST_RECEIVE + RECEIVES)), got
        check_statuses(sends)
        check_statuses(receives)
        self.check_received(receives)

    def check_received(self, completions: "list[Completion]") -> None:
        """The bytes of the messages that V received (completions of sends are passed over)."""
        for each in completions:
            if each.status == SUCCESS and each.opcode == 128 and each.wr_id >= FIRST_RECEIVE:
                place = RECEIVED_AT + (each.wr_id - FIRST_RECEIVE) * RECEIVE_BYTES
                assert self.survivor.number("check", mr=MR_V, off=place, len=each.length, seed=THEIRS) == -1, each

    def check_error(self, slot: int) -> list[tuple[int, int]]:
        """The survivor's QP is in ERR and one async event told so. Returns all events."""
        qpn = self.qpn[self.survivor.name, slot]
        events = self.survivor.events_until((QP_FATAL, qpn))
        assert events.count((QP_FATAL, qpn)) == 1, events
        assert self.survivor.number("state", qp=slot) == ERR
        return events

    def check_nothing_left(self, baseline: tuple[dict[str, int], int], block: int) -> None:
        """After the survivor's queue pairs to the dead went, nothing of the dead is there; its block is free."""
        survivor, bystander = self.survivor, self.bystander
        for slot in (V, SV):
            if (survivor.name, slot) in self.qpn:
                survivor.call("destroy", qp=slot)
        if (survivor.name, MR_V) in self.regions:
            survivor.call("dereg", mr=MR_V)
        becomes(survivor.resources, baseline)
        assert bystander.number("probe_block") // QPN_BLOCK == block
        becomes(lambda: len(names_in(self.directory)), 2)
        self.exchange()
        for actor in (survivor, bystander):
            actor.call("close")
        assert names_in(self.directory) == []


def ids(completions: "list[Completion]") -> list[int]:
    """The work request ids, in order."""
    return [each.wr_id for each in completions]


def check_statuses(queue: "list[Completion]") -> None:
    """Successes, then at most one that says why, then flushes."""
    statuses = [each.status for each in queue]
    good = next((i for i, status in enumerate(statuses) if status != SUCCESS), len(statuses))
    assert all(status == FLUSHED for status in statuses[good + 1 :]), statuses
    assert good == len(statuses) or statuses[good] in (FLUSHED, RETRY_EXCEEDED), statuses
