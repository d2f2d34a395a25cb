"""Who may ask the runtime: many at once, or one alone."""

import threading
from collections.abc import Callable

import pytest

from moderation.errors import RuntimeUnavailable
from worker.runtime.admission import Admission

WAIT_S = 10.0


def in_thread(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_visitors_are_there_together() -> None:
    admission = Admission()
    with admission.visit(0), admission.visit(0):
        assert admission.visitors == 2
    assert admission.wait_until_empty(0)


def test_whoever_would_be_alone_waits_for_the_visitors_and_keeps_others_out() -> None:
    admission = Admission()
    alone, leave = threading.Event(), threading.Event()

    def be_alone() -> None:
        with admission.alone(WAIT_S):
            alone.set()
            leave.wait(WAIT_S)

    with admission.visit(0):
        thread = in_thread(be_alone)
        assert not alone.wait(0.1), "a visitor is there"
        with pytest.raises(RuntimeUnavailable), admission.visit(0.05):
            pytest.fail("somebody waits to be alone")
    assert alone.wait(WAIT_S)
    with pytest.raises(RuntimeUnavailable), admission.visit(0.05):
        pytest.fail("somebody is alone")
    assert not admission.wait_until_empty(0)
    leave.set()
    thread.join(WAIT_S)
    with admission.visit(WAIT_S):
        assert admission.visitors == 1


def test_the_next_of_a_row_of_suspects_comes_before_the_visitors() -> None:
    admission = Admission()
    order: list[str] = []

    def visit() -> None:
        with admission.visit(WAIT_S):
            order.append("visitor")

    with admission.alone(WAIT_S):
        visitor = in_thread(visit)
    with admission.alone(WAIT_S):
        order.append("suspect")
    visitor.join(WAIT_S)
    assert order == ["suspect", "visitor"]


def test_a_suspect_does_not_wait_for_ever() -> None:
    admission = Admission()
    with admission.visit(0), pytest.raises(RuntimeUnavailable), admission.alone(0.05):
        pytest.fail("a visitor is there")
    with admission.visit(WAIT_S):
        assert admission.visitors == 1
