"""Closing and ownership of `ffverbs.base.Handle`, on objects without an engine that record their destruction."""

import copy
import gc
import logging
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from ffverbs import base
from ffverbs.base import Handle, PyverbsCM, PyverbsObject
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError

destroyed: list[str] = []
refuse: set[str] = set()


class Node(Handle):
    """A handle whose engine object is its name."""

    __slots__ = ()
    _GROUPS = ("first", "second")

    def __init__(self, name: str, *parents: "Node", group: str = "first") -> None:
        self._open(name)
        for parent in parents:
            parent._attach(self, group)

    def _destroy(self, handle: Any) -> None:
        if handle in refuse:
            raise PyverbsRDMAError(f"Failed to destroy {handle}", 16)
        destroyed.append(handle)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    destroyed.clear()
    refuse.clear()
    yield
    refuse.clear()
    gc.collect()


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts of the exceptions reported while objects were collected."""
    texts: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: texts.append(str(report.exc_value)))
    return texts


def test_close_takes_the_groups_in_order_and_the_newest_of_a_group_first() -> None:
    root = Node("root")
    kept = [Node("b1", root, group="second"), Node("a1", root), Node("a2", root), Node("b2", root, group="second")]
    root.close()
    assert destroyed == ["a2", "a1", "b2", "b1", "root"]
    for node in [*kept, root]:
        node.close()
    assert len(destroyed) == 5


def test_context_manager_closes() -> None:
    with Node("n") as node:
        assert node._live() == "n"
    assert destroyed == ["n"]


def test_use_after_close_names_the_class_and_the_remedy() -> None:
    node = Node("n")
    node.close()
    with pytest.raises(PyverbsError, match="Node is closed: create a new one"):
        node._live()


def test_children_keep_parents_alive() -> None:
    child = Node("child", Node("parent"))
    gc.collect()
    assert destroyed == []
    del child
    assert destroyed == ["child", "parent"]


def test_a_collected_child_leaves_its_parent() -> None:
    parent = Node("parent")
    Node("child", parent)
    assert destroyed == ["child"]
    assert not parent._has_children()


def test_two_parents() -> None:
    left, right = Node("left"), Node("right")
    child = Node("child", left, right)
    left.close()
    assert destroyed == ["child", "left"]
    assert not right._has_children()
    assert child._parents == []


def test_a_moved_child_closes_with_its_new_parent() -> None:
    old, new = Node("old"), Node("new")
    child = Node("child", old)
    new._attach(child, "first")
    old._detach(child)
    old.close()
    assert destroyed == ["old"]
    new.close()
    assert destroyed == ["old", "child", "new"]


def test_a_refused_destroy_raises_and_leaves_everything_open() -> None:
    root = Node("root")
    child = Node("child", root)
    refuse.add("child")
    with pytest.raises(PyverbsRDMAError, match="Failed to destroy child"):
        root.close()
    assert (root._live(), child._live()) == ("root", "child")
    refuse.clear()
    root.close()
    assert destroyed == ["child", "root"]


def test_a_refused_destroy_in_collection_is_only_reported(unraisable: list[str]) -> None:
    refuse.add("n")
    Node("n")
    assert unraisable == ["Failed to destroy n. Errno: 16, Device or resource busy"]


def test_a_child_whose_destroy_is_refused_in_collection_closes_when_it_may(unraisable: list[str]) -> None:
    parent = Node("parent")
    other = Node("other", parent)
    refuse.add("child")
    Node("child", parent)
    assert len(unraisable) == 1
    assert (parent._has_children(), destroyed) == (True, [])
    Node("unrelated", parent)
    assert destroyed == ["unrelated"], "tried, and refused again"
    refuse.clear()
    other.close()
    assert destroyed == ["unrelated", "other", "child"]
    assert not parent._lingering


def test_a_parent_closes_what_lingers_before_itself(unraisable: list[str]) -> None:
    parent = Node("parent")
    refuse.add("child")
    Node("child", parent)
    with pytest.raises(PyverbsRDMAError, match="destroy child"):
        parent.close()
    assert (parent._live(), destroyed) == ("parent", [])
    refuse.clear()
    parent.close()
    assert destroyed == ["child", "parent"]
    assert len(unraisable) == 1


def test_a_half_made_object_is_collected_silently(unraisable: list[str]) -> None:
    class Broken(Node):
        def __init__(self) -> None:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Broken()
    gc.collect()
    assert (unraisable, destroyed) == ([], [])


def test_imported_objects_are_not_destroyed() -> None:
    node = Node("n")
    node._open("imported", owned=False)
    Node("child", node)
    node.close()
    assert destroyed == ["child"]
    with pytest.raises(PyverbsError):
        node._live()


def test_unknown_group_is_refused() -> None:
    with pytest.raises(ValueError, match="no children called 'third'"):
        Node("x", Node("root"), group="third")


class Loose(Node):
    """Has a `__dict__`, so that instances can be tied into cycles."""


@pytest.mark.parametrize("seed", range(6))
def test_garbage_in_cycles_is_destroyed_children_first(seed: int, unraisable: list[str]) -> None:
    # The collector clears the weak references before it calls any finaliser, and calls those in an order of its own.
    nodes: list[Loose] = []
    order = [3, 0, 2, 1, 4, 5]
    order = order[seed:] + order[:seed]
    root = Loose("root")
    middle = [Loose("m0", root), Loose("m1", root)]
    nodes = [root, *middle, Loose("l0", *middle), Loose("l1", middle[0]), Loose("l2", middle[1], root, group="second")]
    ring = [nodes[i] for i in order]
    for node in nodes:
        node.ring = ring  # type: ignore[attr-defined]
    del root, middle, nodes, ring, node
    gc.collect()
    assert sorted(destroyed) == ["l0", "l1", "l2", "m0", "m1", "root"]
    for child, parent in [("l0", "m0"), ("l0", "m1"), ("l1", "m0"), ("l2", "m1"), ("l2", "root"), ("m1", "root")]:
        assert destroyed.index(child) < destroyed.index(parent), destroyed
    assert unraisable == []


def test_an_overridden_close_is_called_and_may_close_the_parent() -> None:
    class Child(Node):
        def close(self) -> None:
            self._parents[0].close() if self._parents else None
            super().close()

    root = Node("root")
    child = Child("child", root)
    root.close()
    assert destroyed == ["child", "root"]
    child.close()


def test_a_second_thread_waits_for_the_first_to_finish() -> None:
    entered, proceed = threading.Event(), threading.Event()

    class Slow(Node):
        def _destroy(self, handle: Any) -> None:
            entered.set()
            assert proceed.wait(30)
            super()._destroy(handle)

    node = Slow("n")
    returned: list[int] = []

    def close() -> None:
        node.close()
        returned.append(len(destroyed))

    threads = [threading.Thread(target=close) for _ in range(4)]
    threads[0].start()
    assert entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    assert returned == []
    proceed.set()
    for thread in threads:
        thread.join(30)
    assert (destroyed, returned) == (["n"], [1, 1, 1, 1])


def test_many_threads_create_and_close_under_one_parent() -> None:
    root = Node("root")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(300):
                node = Node(f"{number}.{i}", root, group="second")
                if i % 2:
                    node.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    root.close()
    assert failures == []
    assert len(destroyed) == len(set(destroyed)) == 1201
    assert destroyed[-1] == "root"


def test_a_fork_child_can_close_what_a_thread_of_the_parent_was_closing() -> None:
    entered, proceed = threading.Event(), threading.Event()

    class Slow(Node):
        def _destroy(self, handle: Any) -> None:
            if not entered.is_set():
                entered.set()
                assert proceed.wait(30)

    node = Slow("n")
    thread = threading.Thread(target=node.close)
    thread.start()
    assert entered.wait(30)
    pid = os.fork()
    if pid == 0:
        node.close()
        os._exit(0 if node._handle is None else 1)
    status = os.waitpid(pid, 0)[1]
    proceed.set()
    thread.join(30)
    assert status == 0


EXIT = """
import sys
sys.path[:0] = {path!r}
from ffverbs.base import Handle
class Node(Handle):
    def __init__(self, *parents):
        self._open(self)          # a cycle: never freed by reference counts
        for p in parents: p._attach(self, "first")
    _GROUPS = ("first",)
    def _destroy(self, handle):
        import ffverbs.base
        print("destroyed")
root = Node()
sys.keep = leaf = Node(Node(root))
"""


def test_interpreter_exit_is_silent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT.format(path=sys.path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_objects_take_no_unknown_attributes_and_are_neither_copied_nor_pickled() -> None:
    class Attr(PyverbsObject):
        __slots__ = ("value",)

    attr = Attr()
    assert weakref.ref(attr)() is attr
    with pytest.raises(AttributeError):
        attr.other = 1  # type: ignore[attr-defined]
    for operation in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle or copy 'Attr'"):
            operation(attr)

    class Derived(Attr):
        pass

    derived = Derived()
    derived.other = 1  # type: ignore[attr-defined]
    assert derived.other == 1  # type: ignore[attr-defined]


def test_plain_context_manager_closes_nothing() -> None:
    manager = PyverbsCM()
    with manager as entered:
        assert entered is manager
    manager.close()


def test_set_log_level_touches_only_the_logger_of_the_class() -> None:
    before = (logging.getLogger().level, list(logging.getLogger().handlers))
    PyverbsCM().set_log_level(logging.DEBUG)
    assert logging.getLogger("ffverbs.PyverbsCM").level == logging.DEBUG
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before


def test_check_passes_counts_and_raises_errnos(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.check(3, "x") == 3
    monkeypatch.delitem(sys.modules, "ffverbs._native", raising=False)
    with pytest.raises(PyverbsRDMAError) as caught:
        base.check(-22, "Failed to create QP")
    assert caught.value.error_code == 22
    assert str(caught.value) == "Failed to create QP. Errno: 22, Invalid argument"


def test_check_adds_the_explanation_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Native:
        @staticmethod
        def error_text() -> str:
            return "depth 0 is too small"

    monkeypatch.setitem(sys.modules, "ffverbs._native", Native)
    with pytest.raises(PyverbsRDMAError) as caught:
        base.check(-22, "Failed to create CQ")
    assert str(caught.value) == "Failed to create CQ: depth 0 is too small. Errno: 22, Invalid argument"


def test_inc_rkey() -> None:
    assert [base.inc_rkey(k) for k in (0x100, 0x1FF, 0xFFFFFFFF)] == [0x101, 0x100, 0xFFFFFF00]
    with pytest.raises(OverflowError, match="can't convert negative value to uint32_t"):
        base.inc_rkey(-1)
    with pytest.raises(OverflowError, match="value too large to convert to uint32_t"):
        base.inc_rkey(1 << 32)


def test_rdma_errno_is_returned_with_the_errno_of_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class Native:
        class ffi:  # noqa: N801
            errno = 22

    monkeypatch.setitem(sys.modules, "ffverbs._native", Native)
    error = base.PyverbsRDMAErrno("hi")
    assert (str(error), error.error_code) == ("hi. Errno: 22, Invalid argument", 22)
    with pytest.raises(TypeError, match="expected str, got int"):
        base.PyverbsRDMAErrno(5)  # type: ignore[arg-type]
