"""How a victim reaches the fault points of the engine, and what the survivor must see when it dies there."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.crash.actors import (
    FETCH_ADD,
    FLUSHED,
    LAST_WQE_REACHED,
    READ,
    RTS,
    SEND,
    SUCCESS,
    WRITE,
    WRITE_WITH_IMM,
    Completion,
)
from tests.crash.stage import (
    FIRST_DATAGRAM,
    FIRST_SHARED,
    GRH,
    MESSAGE,
    MR_S,
    MR_U,
    MR_V,
    PAGE,
    RECEIVES,
    SB,
    SENDS,
    SV,
    THEIRS,
    Stage,
    U,
    V,
    check_statuses,
    ids,
)

GROUP = "ff0e" + 26 * "0" + "77"
EVERYBODY = 0xFFFFFF

# What every executed operation passes, those that take a receive work request, and those that copy in the usual way.
ANY = ("exec_locked", "exec_cq_claimed", "exec_before_advance", "exec_before_unlock", "exec_before_signal")
RECEIVING = ("exec_after_copy", "exec_cq_written", "exec_cq_published")
COPYING = ("exec_before_copy", "exec_mid_copy")


@dataclass(frozen=True)
class Scenario:
    """`prepare` connects and posts; then the victim's fault is armed; `act` lets the victim run into it; then the
    survivor gathers `expected` completions, and `check` judges them (and what comes after)."""

    name: str
    points: tuple[str, ...]
    prepare: Callable[[Stage], None]
    act: Callable[[Stage], None]
    check: Callable[[Stage, tuple[Completion, ...]], None]
    expected: int = SENDS + RECEIVES
    counts: tuple[int, ...] = (1,)         # which passages of the point
    deny_vm: bool = False
    victim_opens: bool = True
    block: int = 1                         # the QPN block that the victim has


# ---- the victim executes its own queue ----------------------------------------------------------------------------


def busy(stage: Stage) -> None:
    """Everything connected; the survivor has sends that wait for a receive, and receives."""
    stage.victims_pair()
    stage.outstanding()


def victim_posts(opcode: int, n: int = 2, length: int = MESSAGE) -> Callable[[Stage], None]:
    """The victim posts its own work requests."""

    def act(stage: Stage) -> None:
        target = stage.regions[stage.survivor.name, MR_V]
        stage.victim.tell(
            "send", qp=V, id=1, n=n, op=opcode, mr=MR_V, off=0, len=8 if opcode == FETCH_ADD else length,
            raddr=target.address + 900 * PAGE, rkey=target.rkey,
        )  # fmt: skip

    return act


def check_victims_pair(stage: Stage, got: tuple[Completion, ...]) -> None:
    """V is flushed and in error, and nothing else happened."""
    stage.check_flushed(got)
    stage.check_error(V)
    assert stage.survivor.wait(1, ms=0).entries == ()


# ---- the victim executes the survivor's queue ---------------------------------------------------------------------


def victim_receives(stage: Stage) -> None:
    """The victim posts receives, and so runs the sends that wait for them."""
    stage.victim.tell("recv", qp=V, id=1, n=2, mr=MR_V, off=RECEIVED, step=16 * PAGE, len=16 * PAGE)


RECEIVED = 512 * PAGE


def busy_with_immediate(stage: Stage) -> None:
    """As busy, with writes that need a receive."""
    stage.victims_pair()
    target = stage.regions[stage.victim.name, MR_V]
    stage.outstanding(op=WRITE_WITH_IMM, raddr=target.address + RECEIVED, rkey=target.rkey)


def waiting_for_ready(opcode: int) -> Callable[[Stage], None]:
    """The survivor's requests wait for a victim that is not ready to receive yet."""

    def prepare(stage: Stage) -> None:
        survivor, victim = stage.survivor, stage.victim
        for actor in (survivor, victim):
            stage.region(actor, MR_V, 1024 * PAGE)
            stage.qp(actor, V)
        stage.connect(survivor, victim, V, timeout=0)
        target = stage.regions[victim.name, MR_V]
        stage.outstanding(
            op=opcode, len=8 if opcode == FETCH_ADD else MESSAGE, raddr=target.address, rkey=target.rkey
        )

    return prepare


def victim_becomes_ready(stage: Stage) -> None:
    """The victim goes to RTR, and serves who waits for that."""
    survivor = stage.survivor
    stage.victim.tell("connect", qp=V, gid=survivor.gid, rqpn=stage.qpn[survivor.name, V])


# ---- queues that several share ------------------------------------------------------------------------------------


def shared(stage: Stage) -> None:
    """The survivor's SV and SB receive from one queue."""
    busy(stage)
    stage.pair(SB, stage.bystander, srq=0)
    stage.pair(SV, stage.victim, srq=0)
    stage.survivor.call("recv", srq=0, id=FIRST_SHARED, n=RECEIVES, mr=MR_S, off=0, step=PAGE, len=MESSAGE)


def victim_sends_shared(stage: Stage) -> None:
    """The victim sends to the shared receive queue."""
    stage.victim.tell("send", qp=SV, id=1, n=2, op=SEND, mr=MR_V, off=0, len=MESSAGE)


def shared_xrc(stage: Stage) -> None:
    """The survivor's SV and SB, XRC_RECV queue pairs, lead to one queue."""
    busy(stage)
    survivor = stage.survivor
    stage.xrc = survivor.number("xrc_srq", srq=1, cq=0, wr=64)
    for slot, other in ((SB, stage.bystander), (SV, stage.victim)):
        stage.qp(survivor, slot, type="xrc_recv")
        stage.qp(other, slot, type="xrc_send")
        stage.connect(survivor, other, slot, type="xrc_recv")
        stage.connect(other, survivor, slot, type="xrc_send")
    survivor.call("recv", srq=1, id=FIRST_SHARED, n=RECEIVES, mr=MR_S, off=0, step=PAGE, len=MESSAGE)


def victim_sends_xrc(stage: Stage) -> None:
    """The victim sends to the XRC queue."""
    stage.victim.tell("send", qp=SV, id=1, n=2, op=SEND, mr=MR_V, off=0, len=MESSAGE, srqn=stage.xrc)


def waiting_xrc(stage: Stage) -> None:
    """The survivor's XRC requests wait for a receive of the victim's queue."""
    busy(stage)
    stage.xrc = stage.victim.number("xrc_srq", srq=1, cq=0, wr=64)
    stage.qp(stage.survivor, SV, type="xrc_send")
    stage.qp(stage.victim, SV, type="xrc_recv")
    # The survivor is not to try again by its timer while the victim is on its way to the point.
    stage.connect(stage.victim, stage.survivor, SV, type="xrc_recv", rnr_timer=31)
    stage.connect(stage.survivor, stage.victim, SV, type="xrc_send")
    stage.survivor.call("send", qp=SV, id=FIRST_SHARED, n=2, op=SEND, mr=MR_V, off=0, len=MESSAGE, srqn=stage.xrc)


def victim_receives_xrc(stage: Stage) -> None:
    """The victim posts receives, and so runs the XRC requests that wait for them."""
    stage.victim.tell("recv", srq=1, id=1, n=2, mr=MR_V, off=RECEIVED, step=16 * PAGE, len=16 * PAGE)


def check_waiting_xrc(stage: Stage, got: tuple[Completion, ...]) -> None:
    """The XRC requests ended once, in order; the queue pairs to the dead are in error."""
    sends = [each for each in got if each.qpn == stage.qpn[stage.survivor.name, SV]]
    assert ids(sends) == [FIRST_SHARED, FIRST_SHARED + 1], got
    check_statuses(sends)
    stage.check_flushed(got)
    stage.check_error(V)


def tagged(stage: Stage) -> None:
    """The survivor's SV and SB receive from one queue, which matches tags."""
    busy(stage)
    survivor = stage.survivor
    survivor.call("tag_srq", srq=2, cq=0)
    stage.pair(SB, stage.bystander, srq=2)
    stage.pair(SV, stage.victim, srq=2)
    survivor.call("recv", srq=2, id=FIRST_SHARED, n=RECEIVES, mr=MR_S, off=0, step=PAGE, len=MESSAGE)
    for tag in (1, 2):
        survivor.call("tag", srq=2, id=FIRST_TAG + tag, tag=tag, mr=MR_S, off=(10 + tag) * PAGE, len=MESSAGE)


FIRST_TAG = 5000


def victim_sends_tagged(tag: int) -> Callable[[Stage], None]:
    """The victim sends a message with a tag."""

    def act(stage: Stage) -> None:
        stage.victim.call("tmh", mr=MR_V, off=0, tag=tag)
        stage.victim.tell("send", qp=SV, id=1, op=SEND, mr=MR_V, off=0, len=MESSAGE)

    return act


def victim_requests_rendezvous(stage: Stage) -> None:
    """The victim asks to be fetched from, by a key that it does not have."""
    stage.victim.call("tmh", mr=MR_V, off=0, tag=1, op=1)
    stage.victim.tell("send", qp=SV, id=1, op=SEND, mr=MR_V, off=0, len=32)


def check_rendezvous(stage: Stage, got: tuple[Completion, ...]) -> None:
    """The tag is told to have matched, and then, once, that nothing came."""
    ours = [each for each in got if each.wr_id == FIRST_TAG + 1]
    assert len(ours) == 2, got
    assert ours[0].status == SUCCESS, got
    assert ours[1].status in (FLUSHED, RENDEZVOUS_INCOMPLETE), got
    stage.check_flushed(got)
    stage.check_error(V)
    assert stage.survivor.wait(1, ms=0).entries == ()


RENDEZVOUS_INCOMPLETE = 23


def check_tagged(stage: Stage, got: tuple[Completion, ...]) -> None:
    """What the victim's message had taken ended once; the bystander's messages find their tags, new ones too."""
    survivor, bystander = stage.survivor, stage.bystander
    ours = [each for each in got if FIRST_SHARED <= each.wr_id < FIRST_SHARED + RECEIVES or each.wr_id > FIRST_TAG]
    assert len(ours) == 1, got
    assert ours[0].wr_id in (FIRST_SHARED, FIRST_TAG + 1)
    assert ours[0].status in (SUCCESS, FLUSHED), got
    seen = int(ours[0].wr_id == FIRST_SHARED and ours[0].status == SUCCESS)
    survivor.call("tag", srq=2, op=2, seen=seen, flags=1, id=1)
    survivor.call("tag", srq=2, id=FIRST_TAG + 3, tag=3, mr=MR_S, off=13 * PAGE, len=MESSAGE)
    assert ids(list(survivor.wait(1).entries)) == [1]
    for tag in (3, 2):
        bystander.call("tmh", mr=MR_S, off=0, tag=tag)
        bystander.call("send", qp=SB, id=1, op=SEND, mr=MR_S, off=0, len=MESSAGE)
        assert [(each.wr_id, each.status) for each in survivor.wait(1).entries] == [(FIRST_TAG + tag, SUCCESS)]
    assert len(bystander.wait(2).entries) == 2
    stage.check_flushed(got)
    stage.check_error(V)
    assert survivor.wait(1, ms=0).entries == ()


def resizes(stage: Stage) -> None:
    """The victim receives the survivor's requests through a shared queue, which it resizes."""
    busy(stage)
    stage.pair(SV, stage.victim, srq=0)
    stage.victim.call("recv", srq=0, id=1, n=4, mr=MR_V, off=RECEIVED, step=PAGE, len=MESSAGE)


def check_shared(stage: Stage, got: tuple[Completion, ...]) -> None:
    """Each receive of the shared queue ends once: by the victim's message, flushed, or by the bystander's messages."""
    survivor, bystander = stage.survivor, stage.bystander
    bystander.call("fill", mr=MR_S, off=0, len=MESSAGE, seed=5)
    bystander.call("send", qp=SB, id=1, n=RECEIVES, op=SEND, mr=MR_S, off=0, len=MESSAGE, srqn=stage.xrc)
    got += survivor.wait(RECEIVES).entries
    qpns = {stage.qpn[survivor.name, slot]: slot for slot in (SB, SV)}
    received = [each for each in got if each.qpn in qpns]
    assert sorted(ids(received)) == list(range(FIRST_SHARED, FIRST_SHARED + RECEIVES)), got
    for each in received:
        if each.status == SUCCESS:
            seed = 5 if qpns[each.qpn] == SB else THEIRS
            place = (each.wr_id - FIRST_SHARED) * PAGE
            assert survivor.number("check", mr=MR_S, off=place, len=each.length, seed=seed) == -1, got
    stage.check_flushed(got)
    events = stage.check_error(V)
    last = (LAST_WQE_REACHED, stage.qpn[survivor.name, SV])
    if not stage.xrc and last not in events:
        survivor.events_until(last)
    lost = [each for each in received if qpns[each.qpn] == SV]
    if lost:  # the bystander's last messages still wait
        queue = 1 if stage.xrc else 0
        survivor.call("recv", srq=queue, id=FIRST_SHARED, n=len(lost), mr=MR_S, off=0, step=PAGE, len=MESSAGE)
        assert [each.status for each in survivor.wait(len(lost)).entries] == [SUCCESS] * len(lost)
    assert len(bystander.wait(RECEIVES).entries) == RECEIVES
    assert survivor.wait(1, ms=0).entries == ()


def datagrams(stage: Stage) -> None:
    """The survivor receives datagrams of both."""
    busy(stage)
    survivor = stage.survivor
    survivor.call("recv", qp=U, id=FIRST_DATAGRAM, n=RECEIVES, mr=MR_U, off=0, step=PAGE, len=MESSAGE + GRH)
    for actor in (stage.victim, stage.bystander):
        actor.call("ah", ah=0, gid=survivor.gid)
    # The first datagram attaches; from then on the path is there.
    send_datagrams(stage, stage.victim, 1)
    assert ids(list(survivor.wait(1).entries)) == [FIRST_DATAGRAM]
    stage.victim.wait(1)
    survivor.call("recv", qp=U, id=FIRST_DATAGRAM, n=1, mr=MR_U, off=0, len=MESSAGE + GRH)


def send_datagrams(stage: Stage, actor: object, n: int) -> None:
    """Let an actor send datagrams to the survivor."""
    assert actor in (stage.victim, stage.bystander)
    sender = stage.victim if actor is stage.victim else stage.bystander
    slot = MR_V if sender is stage.victim else MR_U
    qpn = stage.qpn[stage.survivor.name, U]
    sender.tell("send", qp=U, id=1, n=n, op=SEND, mr=slot, off=0, len=MESSAGE, ah=0, rqpn=qpn)
    if sender is stage.bystander or n == 1:
        sender.answer()


def group(stage: Stage) -> None:
    """The survivor is in a multicast group, to which the victim has sent."""
    busy(stage)
    survivor, victim = stage.survivor, stage.victim
    survivor.call("mcast", qp=U, gid=GROUP)
    survivor.call("recv", qp=U, id=FIRST_DATAGRAM, n=RECEIVES, mr=MR_U, off=0, step=PAGE, len=MESSAGE + GRH)
    victim.call("ah", ah=0, gid=GROUP)
    stage.bystander.call("ah", ah=0, gid=survivor.gid)
    victim.call("send", qp=U, id=1, n=1, op=SEND, mr=MR_V, off=0, len=MESSAGE, ah=0, rqpn=EVERYBODY)
    assert ids(list(survivor.wait(1).entries)) == [FIRST_DATAGRAM]
    victim.wait(1)
    survivor.call("recv", qp=U, id=FIRST_DATAGRAM, n=1, mr=MR_U, off=0, len=MESSAGE + GRH)


def victim_sends_to_group(stage: Stage) -> None:
    """The victim sends to the multicast group."""
    stage.victim.tell("send", qp=U, id=1, n=2, op=SEND, mr=MR_V, off=0, len=MESSAGE, ah=0, rqpn=EVERYBODY)


def check_group(stage: Stage, got: tuple[Completion, ...]) -> None:
    """As with datagrams: what the victim put on the segment comes once or not at all."""
    check_datagrams(stage, got)
    stage.survivor.call("mcast", qp=U, gid=GROUP, leave=1)


def check_datagrams(stage: Stage, got: tuple[Completion, ...]) -> None:
    """Each datagram receive ends once, and the UD queue pair goes on."""
    survivor, bystander = stage.survivor, stage.bystander
    bystander.call("fill", mr=MR_U, off=0, len=MESSAGE, seed=5)
    send_datagrams(stage, bystander, 1)
    send_datagrams(stage, bystander, RECEIVES - 1)
    got += survivor.wait(RECEIVES).entries
    qpn = stage.qpn[survivor.name, U]
    received = [each for each in got if each.qpn == qpn]
    assert sorted(ids(received)) == list(range(FIRST_DATAGRAM, FIRST_DATAGRAM + RECEIVES)), got
    good = [each for each in received if each.status == SUCCESS]
    for each in good:
        seed = 5 if each.src_qp == stage.qpn[bystander.name, U] else THEIRS
        place = (each.wr_id - FIRST_DATAGRAM) * PAGE + GRH
        assert each.length == MESSAGE + GRH
        assert survivor.number("check", mr=MR_U, off=place, len=MESSAGE, seed=seed) == -1, got
    assert sum(each.src_qp == stage.qpn[bystander.name, U] for each in good) >= RECEIVES - 2, got
    stage.check_flushed(got)
    stage.check_error(V)
    assert survivor.number("state", qp=U) == RTS
    assert len(bystander.wait(RECEIVES).entries) == RECEIVES
    assert survivor.wait(1, ms=0).entries == ()


# ---- connecting, destroying, memory -------------------------------------------------------------------------------


def unconnected(stage: Stage) -> None:
    """Both have a queue pair, and do not know each other."""
    stage.region(stage.survivor, MR_V, 1024 * PAGE)
    stage.qp(stage.survivor, V)
    stage.qp(stage.victim, V)


def survivor_connects(stage: Stage) -> None:
    """The survivor attaches the victim, whose service thread answers; its requests end by their timer."""
    stage.connect(stage.survivor, stage.victim, V, timeout=10, retry=3)
    stage.outstanding()


def check_late(stage: Stage, got: tuple[Completion, ...]) -> None:
    """The victim died before it was known: who connects to it then learns it by the retry timer."""
    assert got == ()
    assert stage.survivor.events(0) == []
    survivor_connects(stage)
    got = stage.survivor.wait(SENDS + RECEIVES).entries
    stage.check_flushed(got)


def check_timed_out(stage: Stage, got: tuple[Completion, ...]) -> None:
    """Flushed after the retries were over, or by the death."""
    stage.check_flushed(got)
    assert stage.survivor.wait(1, ms=0).entries == ()


def check_undisturbed(stage: Stage, got: tuple[Completion, ...]) -> None:
    """Nothing happened."""
    assert got == ()
    assert stage.survivor.events(0) == []


def tell(word: str, **arguments: object) -> Callable[[Stage], None]:
    """The victim is given this command."""
    return lambda stage: stage.victim.tell(word, **arguments)


RUN = (*ANY, *RECEIVING, *COPYING)
LONG = 100 * PAGE  # more than a staging buffer holds


def survivor_reads(stage: Stage) -> None:
    """The survivor reads memory that only the victim reaches: its service thread stages it."""
    target = stage.regions[stage.victim.name, MR_V]
    stage.outstanding(op=READ, len=LONG, raddr=target.address, rkey=target.rkey)


SCENARIOS = (
    Scenario("own-send", (*RUN, "post_send_written"), busy, victim_posts(SEND), check_victims_pair),
    Scenario("own-send-2nd", (*RECEIVING, *COPYING, "exec_before_advance"), busy, victim_posts(SEND, n=4),
             check_victims_pair, counts=(2, 3)),
    Scenario("own-send-own-cq", ("exec_cq_claimed",), busy, victim_posts(SEND), check_victims_pair, counts=(2,)),
    Scenario("own-write-imm", RUN, busy, victim_posts(WRITE_WITH_IMM), check_victims_pair),
    Scenario("own-write", (*ANY, *COPYING), busy, victim_posts(WRITE), check_victims_pair),
    Scenario("own-read", (*ANY, *COPYING), busy, victim_posts(READ), check_victims_pair),
    Scenario("own-atomic", ANY, busy, victim_posts(FETCH_ADD), check_victims_pair),
    Scenario("others-send", (*RUN, "post_recv_written", "post_recv_published"), busy, victim_receives,
             check_victims_pair),
    Scenario("others-send-2nd", ("exec_cq_claimed", *RECEIVING, *COPYING, "exec_before_advance"), busy,
             victim_receives, check_victims_pair, counts=(2,)),
    Scenario("others-write-imm", RUN, busy_with_immediate, victim_receives, check_victims_pair),
    Scenario("others-write", (*ANY, *COPYING), waiting_for_ready(WRITE), victim_becomes_ready, check_victims_pair),
    Scenario("others-read", (*ANY, *COPYING), waiting_for_ready(READ), victim_becomes_ready, check_victims_pair),
    Scenario("others-atomic", ANY, waiting_for_ready(FETCH_ADD), victim_becomes_ready, check_victims_pair),
    Scenario("shared", (*RUN, "exec_rq_named", "exec_rq_taken"), shared, victim_sends_shared, check_shared),
    Scenario("shared-2nd", ("exec_rq_taken", *RECEIVING), shared, victim_sends_shared, check_shared, counts=(2,)),
    Scenario("xrc", (*RUN, "exec_rq_named", "exec_rq_taken"), shared_xrc, victim_sends_xrc, check_shared),
    Scenario("xrc-2nd", ("exec_rq_taken", *RECEIVING), shared_xrc, victim_sends_xrc, check_shared, counts=(2,)),
    Scenario("xrc-staged", ("exec_staged", "exec_rq_taken", "exec_before_unlock"), shared_xrc, victim_sends_xrc,
             check_shared, deny_vm=True),
    Scenario("others-xrc", (*RUN, "exec_rq_taken", "post_recv_published"), waiting_xrc, victim_receives_xrc,
             check_waiting_xrc, expected=SENDS + RECEIVES + 2),
    Scenario("tagged", ("exec_tag_taken", *RECEIVING, "exec_before_copy"), tagged, victim_sends_tagged(1), check_tagged,
             expected=SENDS + RECEIVES + 1),
    Scenario("tagged-unexpected", ("exec_tag_counted", "exec_rq_taken", *RECEIVING, "exec_before_copy"),
             tagged,
             victim_sends_tagged(8), check_tagged, expected=SENDS + RECEIVES + 1),
    Scenario("tagged-staged", ("exec_tag_taken", "exec_staged", "exec_before_unlock"), tagged, victim_sends_tagged(1),
             check_tagged, expected=SENDS + RECEIVES + 1, deny_vm=True),
    Scenario("rendezvous", ("exec_cq_published", "exec_before_advance", "exec_before_unlock"), tagged,
             victim_requests_rendezvous, check_rendezvous, expected=SENDS + RECEIVES + 2),
    Scenario("resizes", ("srq_resize",), resizes, tell("resize", srq=0, wr=300), check_victims_pair),
    Scenario("datagrams", (*ANY, *RECEIVING, "exec_mid_copy", "exec_rq_named", "exec_rq_taken"), datagrams,
             lambda stage: send_datagrams(stage, stage.victim, 2), check_datagrams),
    Scenario("group", ("outbox_written", "outbox_published", *ANY), group, victim_sends_to_group, check_group),
    Scenario("own-staged", ("exec_staged", "exec_before_copy", "exec_locked", "exec_before_unlock"), busy,
             victim_posts(SEND, length=LONG), check_victims_pair, counts=(1, 2), deny_vm=True),
    Scenario("own-staged-read", ("exec_before_copy", "exec_locked", "exec_before_unlock"), busy,
             victim_posts(READ, length=LONG), check_victims_pair, counts=(1, 2), deny_vm=True),
    Scenario("others-staged-read", ("exec_staged", "exec_locked", "exec_before_unlock"), Stage.victims_pair,
             survivor_reads, check_victims_pair, counts=(1, 2), deny_vm=True),
    Scenario("shared-staged", ("exec_staged", "exec_rq_taken", "exec_before_unlock"), shared, victim_sends_shared,
             check_shared, deny_vm=True),
    Scenario("datagrams-staged", ("exec_staged", "exec_rq_taken", "exec_before_unlock"), datagrams,
             lambda stage: send_datagrams(stage, stage.victim, 2), check_datagrams, deny_vm=True),
    Scenario("becomes-ready", ("qp_modify_rtr",), waiting_for_ready(WRITE), victim_becomes_ready, check_victims_pair),
    Scenario("destroys-qp", ("qp_destroy",), busy, tell("destroy", qp=V), check_victims_pair),
    Scenario("registers", ("mr_key_published",), busy, tell("mr", mr=9, len=PAGE), check_victims_pair),
    Scenario("deregisters", ("mr_key_revoked",), busy, tell("dereg", mr=MR_S), check_victims_pair),
    Scenario("connects", ("attach_sent",), unconnected, victim_becomes_ready, check_late, expected=0),
    Scenario("accepts", ("attach_accepted",), unconnected, survivor_connects, check_timed_out),
    Scenario("opens", ("dir_bound",), lambda _: None, tell("open"), check_undisturbed, expected=0,
             victim_opens=False, block=2),
)
