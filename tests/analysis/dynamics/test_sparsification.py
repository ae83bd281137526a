"""Trajectories of sparsification on twins whose masks are made by hand."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.dynamics import sparsification
from weightzoo.analysis.dynamics import twins as made_twins
from weightzoo.analysis.dynamics.sparsification import auc, describe_sparsification, parent_zoo
from weightzoo.analysis.dynamics.trained import fewer
from weightzoo.analysis.dynamics.twins import make_twins
from weightzoo.analysis.results import Context
from weightzoo.datasets import prepare
from weightzoo.datasets.images import ImageData
from weightzoo.errors import NotFoundError
from weightzoo.members import Cohort
from weightzoo.spec import DatasetSpec
from weightzoo.training.protocol import TrainState
from weightzoo.training.sparse import SparseEngine
from weightzoo.zoo import ModelRecord, Zoo, write_zoo
from weightzoo.zoo.header import Sparse

ONE = {factor: values[:1] for factor, values in HYP.items()}
DROPPED = (0.0, 0.25, 0.5)  # the share of each weight tensor that is dropped, behind epochs 1, 2, 3


def twins_of(parents: Zoo, folder) -> Zoo:
    """Twins that lose the smallest weights of each tensor, a quarter and then half of them."""
    layout, prunable = parents.layout, parents.architecture.prunable
    rows = parents.models.to_dict("records")

    def records():
        for number, row in enumerate(rows):
            last = int(row["last_epoch"])
            weights = parents.weights([number], [last])[0, 0]
            masks = np.ones((3, layout.size), np.uint8)
            for name in prunable:
                span = layout.span(name)
                order = np.argsort(np.abs(weights[span]))
                for epoch, share in enumerate(DROPPED):
                    masks[epoch, span.start + order[: round(share * len(order))]] = 0
            named = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
            metrics = {name: np.linspace(0.5, 0.8, 4, dtype=np.float32) for name in (*named, "generalization_gap")}
            metrics |= {"train_objective": metrics["train_loss"], "sparsity": np.float32([0, *DROPPED])}
            kept = (
                "status",
                "diverged_epoch",
                *HYP,
                "seed_init",
                "seed_order",
                "seed_dropout",
                "engine",
                "group",
                "split",
            )
            by_class = np.full((4, 10), 0.5, np.float32)
            yield ModelRecord(
                row={name: row[name] for name in kept}
                | {"member": f"twin {number}", "last_epoch": 3, "diverged_epoch": None}
                | {"parent": row["member"], "parent_epoch": last},
                weights=np.tile(weights, (3, 1)),
                metrics=metrics,
                val_class_accuracy=by_class,
                test_class_accuracy=by_class,
                sparse={"mask": masks},
                layer_sparsity=np.tile(np.float32([0, *DROPPED])[:, None], (1, len(prunable))),
            )

    header = dataclasses.replace(
        parents.header, name=folder.name, checkpoint_epochs=(1, 2, 3), sparse=Sparse(("mask",), prunable)
    )
    write_zoo(folder, header, records())
    return Zoo.open(folder)


@pytest.fixture(scope="module")
def twins(tmp_path_factory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoos")
    return twins_of(synthetic_zoo(folder / "dense", ONE, seeds=4, epochs=2), folder / "dense-sparse")


def test_the_area_under_the_curve_by_hand():
    score = np.array([3.0, 2, 2, 1])
    assert auc(score, np.array([True, True, False, False])) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert np.isnan(auc(score, np.ones(4, bool)))


def test_curves_and_layers_are_those_of_the_records(twins: Zoo):
    found = describe_sparsification(twins, Context())
    by_epoch = found.tables["by_epoch"]
    np.testing.assert_allclose(by_epoch["sparsity"], [0, *DROPPED], atol=1e-6)
    np.testing.assert_allclose(by_epoch["test_accuracy"], np.linspace(0.5, 0.8, 4), atol=1e-6)
    layers = found.tables["layers"]
    assert layers["layer"].unique().tolist() == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    np.testing.assert_allclose(layers.loc[layers["layer"] == "fc1", "sparsity"], [0, *DROPPED], atol=1e-6)


def test_the_smallest_weights_of_a_layer_go_in_the_order_of_their_size(twins: Zoo):
    order = describe_sparsification(twins, Context()).tables["order"].set_index("layer")
    assert parent_zoo(twins).name == "dense"
    assert order.loc["conv2", "auc"] == pytest.approx(1)
    assert order.loc["conv2", "dropped"] == pytest.approx(0.5)
    assert order.loc["conv2", "median_epoch"] == pytest.approx(2.5)
    assert order.loc["conv2", "size_and_epoch"] == pytest.approx(np.sqrt(0.75), abs=0.02)  # two epochs, many sizes
    assert 0.5 < order.loc["all layers", "auc"] < 1  # the layers have not one threshold


def test_without_the_parents_the_first_weights_of_the_twins_stand_for_theirs(twins: Zoo, tmp_path):
    alone = Zoo.open(shutil.copytree(twins.path, tmp_path / "alone"))
    assert parent_zoo(alone) is None
    found = describe_sparsification(alone, Context())
    assert "first epoch's" in found.summary
    assert "agreement" not in found.tables


@pytest.fixture(scope="module")
def digits() -> ImageData:
    data = fewer(prepare("digits", DatasetSpec()))
    some = {split: slice(60) for split in data.labels}
    return dataclasses.replace(
        data,
        images={split: data.images[split][own] for split, own in some.items()},
        labels={split: data.labels[split][own] for split, own in some.items()},
    )


def test_twins_that_are_made_are_those_of_the_reference_engine(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(made_twins, "EPOCHS", 2)
    monkeypatch.setattr(made_twins, "_KEPT", (1, 2))
    parents = synthetic_zoo(tmp_path / "dense", ONE | {"activation": ["tanh", "relu"]}, seeds=2, epochs=2)
    rows = np.array([0, 2, 3])
    twins = make_twins(parents, rows, digits, tmp_path / "twins", 1)
    assert twins.models["parent"].tolist() == parents.models["member"][rows].tolist()
    assert twins.models["activation"].tolist() == ["tanh", "relu", "relu"]
    assert twins.header.probe_images == 50
    for place, row in enumerate(rows):
        start = TrainState.given(parents.weights([int(row)], [2])[:, 0], "adam")
        cohort = Cohort((made_twins._twin(parents, int(row), 2),))
        epochs = [*SparseEngine().train(parents.architecture, cohort, digits, resume=start)]
        weights = twins.weights([place], raw=True)[0]
        assert weights == pytest.approx(np.stack([one.state.weights[0] for one in epochs[1:]]), abs=1e-4)
        measured = twins.epochs[twins.epochs["model"] == place].sort_values("epoch")
        sparsity = [one.sparse.sparsity[0] for one in epochs if one.sparse is not None]
        assert measured["sparsity"].to_numpy() == pytest.approx(np.array(sparsity), abs=2e-3)
        module = parents.module(int(row), epoch=2)
        with torch.no_grad():
            said = module(torch.from_numpy(digits.normalised(digits.images["test"]))).argmax(1).numpy()
        assert measured["test_accuracy"].iloc[0] == pytest.approx((said == digits.labels["test"]).mean())
        masks = twins.masks([place])[0]
        prunable = np.concatenate(
            [np.arange(span.start, span.stop) for span in map(twins.layout.span, twins.architecture.prunable)]
        )
        assert measured["sparsity"].to_numpy()[1:] == pytest.approx(1 - masks[:, prunable].mean(axis=1), abs=1e-6)


def test_of_dense_models_twins_are_made_but_not_for_a_first_look(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(made_twins, "EPOCHS", 2)
    monkeypatch.setattr(made_twins, "_KEPT", (1, 2))
    monkeypatch.setattr(sparsification, "MOST_TWINS", 2)
    dense = synthetic_zoo(tmp_path / "dense", ONE, seeds=4, epochs=2)
    found = describe_sparsification(dense, Context(images=digits))
    assert found.tables["by_epoch"]["epoch"].tolist() == [0, 1, 2]
    assert "parent's" in found.summary
    with pytest.raises(NotFoundError, match="not trained for a first look"):
        describe_sparsification(dense, Context(quick=True, images=digits))
    with pytest.raises(NotFoundError, match="needs the images of digits"):
        describe_sparsification(dense, Context())
