"""The plan of a zoo: counts by the paper, bytes by the files themselves, a calibration that measures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from weightzoo.architectures import architecture
from weightzoo.calibration import Speed
from weightzoo.checkpoints import METRICS, Checkpoints, RecordedMetrics, encode_checkpoints, encode_metrics
from weightzoo.datasets.description import Description
from weightzoo.errors import SpecError
from weightzoo.members import cohorts
from weightzoo.plan import Plan, disk_of, make_plan
from weightzoo.population import population
from weightzoo.spec import Params, load_params, parse_params

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def one(configuration: Any, dataset: dict[str, Any] | None = None, **section: Any) -> Params:
    zoo = {"dataset": "digits", "architecture": "cnn-s", "configuration": configuration} | section
    return parse_params({"build": ["a"], "datasets": {"digits": dataset or {}}, "zoos": {"a": zoo}})


def shown(plan: Plan, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(plan.render())
    return console.export_text()


def test_the_plan_of_the_grid_of_this_repository(params: Params) -> None:
    plan = make_plan("digits-hyp", params, calibrate=False)
    assert (plan.models, plan.states, plan.parameters) == (512, 512 * 51, 2464)
    assert [(cohort.activation, cohort.optimizer, cohort.models) for cohort in plan.cohorts] == [
        (activation, optimizer, 64)
        for activation in ("tanh", "sigmoid", "relu", "gelu")
        for optimizer in ("adam", "sgd")
    ]
    assert plan.data == Description((1, 28, 28), 10, {"train": 1257, "val": 180, "test": 360})
    members = population(params.zoo("digits-hyp"), "any").ask()
    assert plan.splits == {name: sum(member.split == name for member in members) for name in ("train", "val", "test")}
    assert plan.factors["learning rate"] == "0.001, 0.0001"
    assert plan.factors["seeds"] == "1-2"
    assert not plan.depends_on_results


def test_without_calibration_there_is_no_time(params: Params) -> None:
    plan = make_plan("digits-seed", params, calibrate=False)
    assert plan.seconds is None
    assert {(cohort.engine, cohort.seconds) for cohort in plan.cohorts} == {(None, None)}
    assert "time not measured" in shown(plan)


def test_a_search_is_planned_by_its_first_batch(params: Params) -> None:
    plan = make_plan("digits-search", params, calibrate=False)
    assert (plan.models, plan.states) == (48, 48 * 21)
    assert plan.depends_on_results
    assert sum(cohort.models for cohort in plan.cohorts) == sum(plan.splits.values()) == 48
    assert plan.factors["learning rate"] == "0.0001 to 0.01, logarithmic"
    assert plan.protocol["search"] == "tpe for val accuracy, 16 models a batch, pruned by median from epoch 5"
    assert "at most 1,008" in shown(plan)


def test_a_search_that_does_not_learn_is_planned_exactly() -> None:
    factors = {"dropout": {"low": 0, "high": 0.5}, "activation": ["tanh", "relu"]}
    spec = one({"kind": "search", "sampler": "qmc", "models": 20, "batch": 4}, factors=factors)
    plan = make_plan("a", spec, calibrate=False)
    members = population(spec.zoo("a"), "any").ask()
    assert not plan.depends_on_results
    assert [cohort.models for cohort in plan.cohorts] == [len(cohort) for cohort in cohorts(members)]


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ({"count": 3, "first": 7}, "7-9"),
        ({"count": 1}, "1"),
        ([4, 9], "4, 9"),
        ({"random": 2000}, "2,000 of its own for each point, drawn from seed 5"),
        ({"count": 2, "vary": ["init", "order"]}, "1-2 (varying init and order only)"),
    ],
)
def test_seeds_are_described(seeds: Any, text: str) -> None:
    assert make_plan("a", one({"kind": "seed", "seeds": seeds}, seed=5), calibrate=False).factors["seeds"] == text


def test_schedules_are_described() -> None:
    training = {"epochs": 7, "batch_size": 4, "schedule": {"kind": "step", "every": 3}}
    plan = make_plan("a", one({"kind": "seed", "seeds": [1]}, training=training), calibrate=False)
    assert plan.protocol == {"protocol": "7 epochs, batch size 4, learning rate step (every 3, factor 0.1)"}


def test_images_of_the_wrong_size_are_refused_with_the_remedy() -> None:
    with pytest.raises(SpecError, match="cnn-s takes images of 1x28x28, the data set has 1x32x32; change `size`"):
        make_plan("a", one({"kind": "seed", "seeds": [1]}, dataset={"size": 32}), calibrate=False)
    with pytest.raises(SpecError, match=r"no zoo 'b' in params.yaml"):
        make_plan("b", one({"kind": "seed", "seeds": [1]}), calibrate=False)


def test_json_is_plain_and_complete(params: Params) -> None:
    plan = make_plan("digits-search", params, calibrate=False).to_json()
    assert json.loads(json.dumps(plan, allow_nan=False)).keys() == plan.keys()
    assert plan["states"] == 1008
    assert plan["disk"]["total"] == plan["disk"]["runs"] + 2 * plan["disk"]["zoo"]
    assert plan["data"]["counts"] == {"train": 1257, "val": 180, "test": 360}


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_is_cut_at_any_width(params: Params, width: int) -> None:
    words = shown(make_plan("digits-hyp", params, calibrate=False), width).split()
    assert {"kaiming_uniform,", "26,112:", "512:", "0.0001", "sigmoid", "2,464"} <= set(words)
    assert not any("…" in word for word in words)


# ---- disk


def test_the_bytes_are_those_of_the_files() -> None:
    built = architecture("cnn-s", (1, 28, 28), 10)
    epochs, kept = np.arange(51, dtype=np.int32), tuple(range(0, 51, 2))
    checkpoints = Checkpoints("m", kept, np.zeros((len(kept), built.layout.size), np.float32))
    metrics = RecordedMetrics(
        member="m",
        epochs=epochs,
        values={name: np.zeros(51, np.float32) for name in METRICS},
        val_class_accuracy=np.zeros((51, 10), np.float32),
        test_class_accuracy=np.zeros((51, 10), np.float32),
        checkpoint_epochs=np.array(kept, np.int32),
        probe_logits=np.zeros((len(kept), 50, 10), np.float16),
    )
    disk = disk_of(1, built.layout.size, len(kept), 50, 10)
    for planned, content in (
        (disk.checkpoints, encode_checkpoints(checkpoints, built.layout)),
        (disk.metrics, encode_metrics(metrics)),
    ):
        assert 0 <= len(content) - planned < 2000  # the header, and the epochs' numbers


def test_the_disk_of_a_published_zoo() -> None:
    """2,560 models of 2,464 parameters at 51 epochs: 1.29 GB of weights."""
    disk = disk_of(2560, 2464, 51, 50, 10)
    assert disk.checkpoints == 2560 * 2464 * 51 * 4
    assert disk.zoo > disk.checkpoints
    assert disk.total == disk.checkpoints + disk.metrics + disk.database + 2 * disk.zoo


# ---- calibration


def test_what_was_not_measured_takes_the_mean(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = [Speed("lanes", 1.0, 1e-6, 64), Speed("lanes", 3.0, 3e-6, 64)]
    monkeypatch.setattr("weightzoo.plan.calibrate", lambda *_, **__: speeds)
    plan = make_plan("digits-hyp", params)
    work = 64 * 1257 * 50
    expected = [1 + work * 1e-6, 3 + work * 3e-6] + 6 * [2 + work * 2e-6]
    assert [cohort.seconds for cohort in plan.cohorts] == pytest.approx(expected)
    assert [cohort.measured for cohort in plan.cohorts] == [True, True] + 6 * [False]
    assert plan.seconds == pytest.approx(sum(expected))
    assert "by a short calibration of 2 of 8 cohorts" in " ".join(shown(plan).split())


def test_a_plan_is_calibrated_with_the_engine_that_will_train() -> None:
    training = {"epochs": 2}
    seeds = one({"kind": "seed", "seeds": [1, 2]}, {"train": 40, "val": 10}, engine="torch", training=training)
    plan = make_plan("a", seeds, threads=1)
    (cohort,) = plan.cohorts
    assert cohort.engine == "torch"
    assert cohort.measured
    assert plan.seconds == cohort.seconds is not None
