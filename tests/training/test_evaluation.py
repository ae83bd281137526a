from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training import oracle
from tests.training.helpers import TINY, make_cohort
from weightzoo.errors import LayoutError
from weightzoo.training.evaluation import BATCH, evaluate, join
from weightzoo.training.initial import initial_weights
from weightzoo.training.protocol import Metrics

IMAGES = 2 * BATCH + 37
RANDOM = np.random.default_rng(1)
INPUTS = RANDOM.standard_normal((IMAGES, *TINY.input_shape)).astype(np.float32)
LABELS = RANDOM.integers(0, TINY.classes - 1, IMAGES).astype(np.int32)  # the last class has no images


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    inits = ("kaiming_uniform", "normal", "kaiming_normal", "uniform")
    return initial_weights(TINY, make_cohort([{"init": init} for init in inits]).members)


@pytest.mark.parametrize("activation", sorted(oracle.ACTIVATIONS))
def test_agrees_with_float64(weights: np.ndarray, activation: str) -> None:
    found = evaluate(TINY, activation, weights, INPUTS, LABELS, keep_logits=True)
    inputs, labels = torch.tensor(INPUTS, dtype=torch.float64), torch.tensor(LABELS, dtype=torch.long)
    for row, own in enumerate(weights):
        logits = oracle.forward(TINY, activation, torch.tensor(own, dtype=torch.float64), inputs, {})
        right = (logits.argmax(1) == labels).numpy()
        assert found.loss[row] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
        assert found.accuracy[row] == pytest.approx(right.mean(), abs=1.5 / IMAGES)
        for number in range(TINY.classes - 1):
            expected = right[number == LABELS].mean()
            assert found.class_accuracy[row, number] == pytest.approx(expected, abs=3 / (number == LABELS).sum())
        np.testing.assert_allclose(found.logits[row], logits.numpy(), rtol=1e-4, atol=1e-4)
    assert np.isnan(found.class_accuracy[:, -1]).all()


def test_counts_are_those_of_the_logits(weights: np.ndarray) -> None:
    found = evaluate(TINY, "tanh", weights, INPUTS, LABELS, keep_logits=True)
    right = found.logits.argmax(2) == LABELS
    np.testing.assert_array_equal(found.accuracy, right.mean(1).astype(np.float32))
    for number in range(TINY.classes - 1):
        expected = right[:, number == LABELS].mean(1).astype(np.float32)
        np.testing.assert_array_equal(found.class_accuracy[:, number], expected)
    assert found.loss.dtype == found.accuracy.dtype == found.class_accuracy.dtype == found.logits.dtype == np.float32


def test_a_model_alone_gives_the_same_bits(weights: np.ndarray) -> None:
    together = evaluate(TINY, "gelu", weights, INPUTS, LABELS, keep_logits=True)
    alone = evaluate(TINY, "gelu", weights[2:3], INPUTS, LABELS, keep_logits=True)
    assert alone.loss.tobytes() == together.loss[2:3].tobytes()
    assert alone.logits.tobytes() == together.logits[2:3].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_weights_that_are_not_finite(weights: np.ndarray, activation: str, value: float) -> None:
    sound = evaluate(TINY, activation, weights, INPUTS, LABELS)
    for position in (0, TINY.layout.size - 1):
        broken = weights.copy()
        broken[1, position] = value
        found = evaluate(TINY, activation, broken, INPUTS, LABELS)
        assert np.isnan(found.loss[1])
        assert 0 <= found.accuracy[1] <= 1
        kept = [0, 2, 3]
        assert found.loss[kept].tobytes() == sound.loss[kept].tobytes()
        assert found.class_accuracy[kept].tobytes() == sound.class_accuracy[kept].tobytes()


def test_an_image_with_nan_logits_is_wrong(weights: np.ndarray) -> None:
    broken = np.full_like(weights, np.nan)
    found = evaluate(TINY, "tanh", broken, INPUTS, LABELS)
    assert not found.accuracy.any()
    assert not found.class_accuracy[:, :-1].any()


def test_losses_that_overflow_are_nan(weights: np.ndarray) -> None:
    assert np.isnan(evaluate(TINY, "relu", weights * np.float32(1e30), INPUTS, LABELS).loss).all()


def test_no_images(weights: np.ndarray) -> None:
    found = evaluate(TINY, "tanh", weights, INPUTS[:0], LABELS[:0])
    assert np.isnan(found.loss).all()
    assert np.isnan(found.class_accuracy).all()


def test_weight_vectors_of_another_architecture_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(LayoutError, match=f"weight vector has {TINY.layout.size - 1} entries, the architecture has"):
        evaluate(TINY, "tanh", weights[:, 1:], INPUTS, LABELS)


def test_join_puts_members_in_order() -> None:
    def metrics(start: int, members: int) -> Metrics:
        rows = np.arange(start, start + members, dtype=np.float32)
        wide = rows[:, None]
        return Metrics(rows, rows, rows, rows, rows, rows, wide, wide, wide[..., None])

    joined = join([metrics(0, 2), metrics(2, 4)], 5)
    assert joined.train_loss.tolist() == joined.test_accuracy.tolist() == [0, 1, 2, 3, 4]
    assert joined.probe_logits.shape == (5, 1, 1)
