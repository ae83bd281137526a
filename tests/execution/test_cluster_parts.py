"""The parts of training on a cluster that need none: sizes, attempts at one shard, what goes wrong beforehand."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from tests.execution.support import DriftEngine, image_data, store, train, zoo_spec
from tests.execution.test_resume import check_same_as
from weightzoo.architectures import architecture
from weightzoo.errors import ClusterError, FormatError, TrackingError
from weightzoo.execution.build import Engines, usable_runs
from weightzoo.execution.cluster.connection import connected
from weightzoo.execution.cluster.sizing import Backlog, Node, share
from weightzoo.execution.cluster.tasks import Order, Recorded, record_members
from weightzoo.members import cohorts
from weightzoo.population import grid_members


def node(name: str, slots: int = 1, speed: float = float("nan")) -> Node:
    return Node(name, name, slots, speed=speed)


def test_shares_follow_speed_and_shrink():
    fast, slow, new = node("fast", 2, 30.0), node("slow", 1, 10.0), node("new")
    both = [fast, slow]
    assert share(fast, both, left=1400, least=1, most=10_000) == 300  # 1400 / 2 * 30 / (2 * 30 + 10)
    assert share(slow, both, left=1400, least=1, most=10_000) == 100
    assert share(fast, both, left=1400, least=16, most=64) == 64
    assert share(fast, both, left=3, least=16, most=64) == 16
    assert share(new, [*both, new], left=1400, least=16, most=64) == 16


@pytest.mark.parametrize("parameters", [2464, 11_000_000])
def test_all_members_are_taken_once(parameters):
    members = grid_members(zoo_spec("seed"), "hash")
    there = [node("a", 2, 5.0), node("b", 1, 50.0)]
    backlog = Backlog(cohorts(members), parameters, 64)
    taken = []
    while (cohort := backlog.take(there[len(taken) % 2], there)) is not None:
        assert len(cohort) <= backlog.most
        taken += cohort.members
    assert taken == list(members)
    assert backlog.left == 0


def order(folder: Path, attempt: str) -> Order:
    data = image_data()
    built = architecture("cnn-s", data.image_shape, data.classes)
    return Order(
        attempt=attempt,
        zoo="z",
        tracking_uri=store(folder).uri,
        resume_folder=str(folder / ".resume"),
        parent_runs={},
        cohort=cohorts(grid_members(zoo_spec(), data.content_hash))[0],
        ended=frozenset(),
        start=None,
        engines=Engines(DriftEngine(), built, "cpu", 1),
        engine="drift",
        objective="val_accuracy",
        prune=None,
        snapshot_seconds=0.0,
        log_seconds=0.0,
    )


def test_of_two_attempts_at_once_one_counts(folder, undisturbed):
    """A node was given up but lives: its attempt goes on beside the one that took its place, and both come to an end.

    Its own end is an error if what it had saved was taken over.
    """
    given_up = record_members(order(folder, "first"), image_data())
    for _ in range(4):
        next(given_up)
    *_, recorded = record_members(order(folder, "second"), image_data())
    assert isinstance(recorded, Recorded)
    runs = store(folder).zoo("z")
    assert not any(run.ended for own in runs.known().values() for run in own)
    for prepared in recorded.runs.values():
        runs.end(prepared.run_id, prepared.ended_ms)
    with contextlib.suppress(FormatError, TrackingError):
        list(given_up)
    train(folder, zoo_spec(), engine := DriftEngine())
    assert not {member for _, member in engine.trained} & set(recorded.runs)
    check_same_as(folder, undisturbed["grid"])


def test_runs_that_only_lack_their_end_are_not_trained_again(folder, undisturbed):
    """The driver was killed before it ended them."""
    *_, recorded = record_members(order(folder, "first"), image_data())
    known = usable_runs(store(folder).zoo("z"))
    assert all(own[0].ended and own[0].run_id == recorded.runs[member].run_id for member, own in known.items())
    train(folder, zoo_spec(), engine := DriftEngine())
    assert not {member for _, member in engine.trained} & set(recorded.runs)
    check_same_as(folder, undisturbed["grid"])


def test_an_attempt_goes_on_from_what_another_saved(folder, undisturbed):
    first = record_members(order(folder, "first"), image_data())
    for _ in range(5):
        next(first)
    first.close()
    *steps, _ = record_members(order(folder, "second"), image_data())
    assert [step.replayed for step in steps] == [True] * 5 + [False] * 2
    train(folder, zoo_spec())
    check_same_as(folder, undisturbed["grid"])


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install weightzoo\[ray\]$"), connected(None):
        pass


def test_an_address_where_nobody_answers_is_an_error_of_one_line(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr("weightzoo.execution.cluster.connection.CONNECT_SECONDS", 0.1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for address, problem in ((f"127.0.0.1:{port}", "nobody answers"), ("head", "expected HOST:PORT")):
        with pytest.raises(ClusterError, match=problem), connected(address):
            pass
