"""Agreement, similarity and distance of pairs of models against libraries, loops and the formulas as published."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score
from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

from tests.report.synthetic import HYP, synthetic_zoo
from tests.zoo import synthetic_zoo as with_probe
from weightzoo.analysis.agreement import agreement, agreements, predictions
from weightzoo.analysis.distances import aligned_distances, all_distances, weight_distances
from weightzoo.analysis.pairs import ALL, SAME, between_levels, kinds, pair_interval, pair_mean, sampled_pairs
from weightzoo.analysis.results import Context
from weightzoo.analysis.similarity import (
    activations,
    centred_kernels,
    cka,
    gram,
    hidden_similarity,
    output_similarity,
)
from weightzoo.architectures import architecture
from weightzoo.architectures.module import build_module
from weightzoo.datasets import ImageData
from weightzoo.errors import NotFoundError
from weightzoo.training.evaluation import evaluate
from weightzoo.zoo import Permute, Zoo, write_zoo

SMALL = {
    **{factor: values[:1] for factor, values in HYP.items()},
    "activation": ["tanh", "relu"],
    "dropout": [0.0, 0.5],
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """12 models, two values of two factors, three seeds; model 3 diverged."""
    return synthetic_zoo(tmp_path_factory.mktemp("zoos") / "pairs", SMALL, seeds=3, epochs=3, diverged=[3])


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A zoo with probe outputs: 10 finished models, one diverged, one pruned."""
    head = with_probe.header(12)
    path = write_zoo(tmp_path_factory.mktemp("zoos") / "probed", head, with_probe.records(head))
    return Zoo.open(path)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(5)
    return ImageData(
        name="noise",
        images={split: rng.integers(0, 256, (30, 1, 28, 28), dtype=np.uint8) for split in ("train", "val", "test")},
        labels={split: np.arange(30, dtype=np.int32) % 10 for split in ("train", "val", "test")},
        mean=(0.5,),
        std=(0.3,),
        class_names=tuple("0123456789"),
        source="digits",
    )


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    predicted = np.where(rng.random((6, 40)) < 0.6, np.arange(40) % 4, rng.integers(0, 4, (6, 40)))
    observed, kappa = agreements(predicted, 4)
    for a, b in itertools.product(range(6), repeat=2):
        assert observed[a, b] == pytest.approx(np.mean(predicted[a] == predicted[b]))
        assert kappa[a, b] == pytest.approx(cohen_kappa_score(predicted[a], predicted[b], labels=range(4)))


def test_kappa_of_constant_and_of_unknown_predictions():
    predicted = np.array([[1, 1, 1], [1, 1, 1], [2, 2, 2], [0, 1, -1]])
    observed, kappa = agreements(predicted, 3)
    assert observed[0].tolist()[:3] == [1, 1, 0]
    assert np.isnan(kappa[0, 1])  # both always say 1: nothing is beyond chance
    assert kappa[0, 2] == 0
    assert np.isnan(observed[3]).all()
    assert np.isnan(kappa[:, 3]).all()
    logits = np.array([[0, 2, 1], [3, 3, 0], [np.nan, 1, 2]], np.float16)
    assert predictions(logits).tolist() == [1, 0, -1]


def hsic(first: np.ndarray, second: np.ndarray) -> float:
    """Kornblith et al. 2019, eq. 3: tr(K H L H) / (n - 1)^2."""
    n = len(first)
    centring = np.eye(n) - np.ones((n, n)) / n
    return np.trace(first @ first.T @ centring @ second @ second.T @ centring) / (n - 1) ** 2


def unbiased_hsic(first: np.ndarray, second: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, for linear kernels."""
    n = len(first)
    one, other = ((x @ x.T) * (1 - np.eye(n)) for x in (first, second))
    ones = np.ones(n)
    middle = (ones @ one @ ones) * (ones @ other @ ones) / ((n - 1) * (n - 2))
    return (np.trace(one @ other) + middle - 2 / (n - 2) * ones @ one @ other @ ones) / (n * (n - 3))


@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_is_that_of_the_formula(unbiased: bool):
    rng = np.random.default_rng(1)
    common = rng.normal(size=(20, 5))
    features = [np.hstack([common[:, :k], rng.normal(size=(20, 4))]) + 3 for k in range(1, 5)]
    kernels = centred_kernels(np.stack([gram(own) for own in features]), unbiased=unbiased)
    found = cka(kernels, kernels)
    measure = unbiased_hsic if unbiased else hsic
    for a, b in itertools.product(range(4), repeat=2):
        own = [measure(features[i], features[j]) for i, j in ((a, b), (a, a), (b, b))]
        assert found[a, b] == pytest.approx(own[0] / np.sqrt(own[1] * own[2]), abs=1e-6)
    if not unbiased:  # eq. 4 for linear kernels: |Y'X|^2 / (|X'X| |Y'Y|)
        x, y = (own - own.mean(0) for own in features[:2])
        expected = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
        assert found[0, 1] == pytest.approx(expected, abs=1e-6)


def test_cka_does_not_see_rotation_scale_and_shift_nor_what_is_constant():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(15, 6))
    turned = 7 * features @ np.linalg.qr(rng.normal(size=(6, 6)))[0] - 2
    constant = np.full((15, 6), 0.1) + 1e-9 * rng.normal(size=(15, 6))
    broken = np.where(features > 2, np.inf, features)
    broken[0, 0] = np.inf
    found = cka(
        *[centred_kernels(np.stack([gram(f) for f in (features, turned, constant, broken)]), unbiased=True)] * 2
    )
    assert found[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.isnan(found[0, 2:]).all()
    assert np.isnan(found[2:]).all()


def test_activations_are_those_of_the_module(images):
    for name, shape in (("cnn-s", (1, 28, 28)), ("resnet-18", (1, 28, 28))):
        built = architecture(name, shape, 10)
        network = build_module(built, "relu").eval()
        inputs = images.normalised(images.images["test"][:4])
        state = {key: value.numpy() for key, value in network.state_dict().items()}
        found = dict(activations(built, "relu", built.layout.flatten(state), inputs))
        last = list(found)[-1]
        with torch.no_grad():
            np.testing.assert_allclose(found[last], network(torch.from_numpy(inputs)).numpy(), rtol=1e-5, atol=1e-5)
        if name == "cnn-s":
            assert {layer: own.shape[1] for layer, own in found.items()} == {
                "conv1": 8 * 12 * 12, "conv2": 6 * 4 * 4, "conv3": 36, "fc1": 20, "fc2": 10,
            }  # fmt: skip
            assert all((own >= 0).all() for layer, own in found.items() if layer != "fc2")
        else:
            assert len(found) == 1 + 8 + 1


def test_distances_are_those_of_a_loop():
    weights = np.random.default_rng(3).normal(size=(5, 30)).astype(np.float32)
    weights[4] = 0
    euclidean, cosine = all_distances(weights)
    np.testing.assert_allclose(euclidean, euclidean_distances(weights.astype(np.float64)), atol=1e-6)
    np.testing.assert_allclose(cosine[:4, :4], cosine_distances(weights[:4].astype(np.float64)), atol=1e-12)
    assert np.isnan(cosine[4]).all()
    for a, b in itertools.combinations(range(4), 2):
        assert euclidean[a, b] == pytest.approx(
            np.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(weights[a], weights[b], strict=True)))
        )


def test_a_model_with_its_units_in_another_order_is_at_no_distance_once_aligned(zoo: Zoo):
    weights = zoo.weights([0, 1, 2], [3])[:, 0]
    permuted = Permute(zoo.symmetries, seed=1)(torch.from_numpy(weights[0])).numpy()
    stacked = np.stack([weights[0], permuted, weights[1], np.full_like(permuted, np.nan)])
    table = aligned_distances(zoo, stacked, np.array([[0, 1], [0, 2], [0, 3]]))
    euclidean, cosine = all_distances(stacked)
    assert euclidean[0, 1] > 1
    assert table["L2_distance"][0] == pytest.approx(0, abs=1e-5)
    assert table["cosine_distance"][1] <= cosine[0, 2] + 1e-9
    assert table.loc[2].isna().all()


def test_means_over_pairs_are_those_of_a_loop(zoo: Zoo):
    models = zoo.models
    rng = np.random.default_rng(4)
    measure = rng.normal(size=(12, 12))
    measure += measure.T
    measure[2, 5] = measure[5, 2] = np.nan
    table = between_levels(measure, models, "x").set_index(["one_model", "other_model"])
    found = kinds(models)
    assert set(found) == {ALL, SAME}

    def expected(belongs) -> float:
        pairs = [(i, j) for i, j in itertools.permutations(range(12), 2) if belongs(models.iloc[i], models.iloc[j])]
        return float(np.nanmean([measure[pair] for pair in pairs]))

    assert pair_mean(measure, found[ALL]) == pytest.approx(expected(lambda a, b: True))
    assert pair_mean(measure, found[SAME]) == pytest.approx(expected(lambda a, b: a["group"] == b["group"]))
    across = expected(lambda a, b: (a["activation"], b["activation"]) == ("tanh", "relu"))
    within = expected(lambda a, b: a["dropout"] == b["dropout"] == 0.5)
    assert table.loc[("activation tanh", "activation relu"), "x"] == pytest.approx(across)
    assert table.loc[("dropout 0.5", "dropout 0.5"), "x"] == pytest.approx(within)
    assert table.loc[("dropout 0.5", "dropout 0.5"), "pairs"] == 15
    drawn = sampled_pairs(found[SAME], 7, rng)
    assert len(np.unique(drawn, axis=0)) == 7
    assert all(found[SAME][a, b] and a < b for a, b in drawn)


def test_the_interval_over_models_is_wider_than_that_over_pairs():
    """x_i + x_j: the variance of the mean of all pairs is 4 var(x) / M, whatever the number of pairs."""
    x = np.random.default_rng(5).normal(size=200)
    low, high = pair_interval(x[:, None] + x[None, :], ~np.eye(200, dtype=bool), np.random.default_rng(6))
    assert (high - low) / 2 == pytest.approx(1.96 * 2 * x.std() / np.sqrt(200), rel=0.1)


def test_methods_count_finished_models_and_bound_their_means(zoo: Zoo, probed: Zoo, images: ImageData):
    results = [
        agreement(probed, Context()),
        output_similarity(probed, Context()),
        weight_distances(zoo, Context(quick=True)),
        hidden_similarity(zoo, Context(images=images)),
    ]
    for result in results:
        assert result.scores
        for score in result.scores:
            assert score.low <= score.value <= score.high, score
            assert score.models in (None, 10 if result.method in ("agreement", "output-similarity") else 11)
        assert len(result.figures) >= 2
    assert results[0].tables["by_epoch"]["epoch"].nunique() == 5
    sampled = results[2].tables["sampled"].pivot(index="epoch", columns="pairs", values="cosine_distance")
    assert (sampled[f"{SAME}, aligned"] <= sampled[f"{SAME}, raw"]).all()
    layers = results[3].tables["between_layers"].pivot(index="layer", columns="other", values="CKA").to_numpy()
    np.testing.assert_allclose(layers, layers.T, atol=1e-6)


def test_predictions_agree_with_those_of_the_engine(zoo: Zoo, images: ImageData):
    """Logits of an evaluation of the same weights, as a probe holds them, are what the last activations say."""
    weights = zoo.weights([0], [3])[0]
    inputs = images.inputs["test"]
    made = evaluate(zoo.architecture, "tanh", weights, inputs, images.labels["test"], keep_logits=True)
    found = dict(activations(zoo.architecture, "tanh", weights[0], inputs))["fc2"]
    assert made.logits is not None
    assert predictions(found).tolist() == predictions(made.logits[0]).tolist()


def test_what_is_lacking_is_named(zoo: Zoo, probed: Zoo):
    with pytest.raises(NotFoundError, match="holds no probe outputs"):
        agreement(zoo, Context())
    with pytest.raises(NotFoundError, match="two finished models, the zoo has 1"):
        weight_distances(zoo.select([0, 3]), Context())
    with pytest.raises(NotFoundError, match="weightzoo prepare probed"):
        hidden_similarity(probed, Context())
