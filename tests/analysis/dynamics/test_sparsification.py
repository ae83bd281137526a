"""Trajectories of sparsification on twins whose masks are made by hand."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.dynamics.sparsification import auc, describe_sparsification, parent_zoo
from weightzoo.analysis.results import Context
from weightzoo.errors import NotFoundError
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


def test_a_dense_zoo_is_told_which_one_to_take(twins: Zoo):
    with pytest.raises(NotFoundError, match="dense has dense models; take a zoo of their twins, such as dense-sparse"):
        describe_sparsification(parent_zoo(twins), Context())
