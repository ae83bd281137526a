"""The background writer: it waits for memory as well as for its place in the queue."""

from __future__ import annotations

import threading

import pytest

from weightzoo.execution.background import BackgroundWriter


def test_work_that_would_hold_too_much_memory_waits_for_the_work_before_it() -> None:
    writer = BackgroundWriter(capacity=4, capacity_bytes=100)
    begun, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        begun.set()
        go_on.wait(10)
        order.append("first done")

    writer.submit(first, nbytes=60)
    begun.wait(10)
    writer.submit(lambda: order.append("small"), nbytes=40)  # fits beside it

    def submit_more() -> None:
        writer.submit(lambda: order.append("large"), nbytes=500)
        order.append("large submitted")

    waiting = threading.Thread(target=submit_more)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    assert order == []
    go_on.set()
    waiting.join(10)
    writer.close()
    assert order[:2] == ["first done", "small"]
    assert set(order[2:]) == {"large", "large submitted"}  # alone, though it is more than all that is allowed


def test_failed_work_gives_its_memory_back() -> None:
    writer = BackgroundWriter(capacity_bytes=100)

    def fail() -> None:
        raise RuntimeError("a full disk")

    done: list[int] = []
    for number in range(3):
        writer.submit(fail, essential=True, nbytes=90)
        writer.submit(lambda number=number: done.append(number), essential=True, nbytes=90)
    writer.abandon(only_essential=True)
    assert done == [0, 1, 2]
    assert writer.failed


@pytest.mark.parametrize(("only_essential", "expected"), [(True, ["essential"]), (False, ["other", "essential"])])
def test_abandoned_work_is_done_if_it_is_wanted(only_essential, expected):
    writer, started, done = BackgroundWriter(), threading.Event(), []
    writer.submit(lambda: started.wait(5))
    writer.submit(lambda: done.append("other"))
    writer.submit(lambda: done.append("essential"), essential=True)
    threading.Timer(0.1, started.set).start()
    writer.abandon(only_essential=only_essential)
    assert done == expected
