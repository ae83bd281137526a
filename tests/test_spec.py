"""`params.yaml`: every mistake is refused in one line with its place and the remedy, everything else survives a round trip."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from weightzoo.architectures import ARCHITECTURES
from weightzoo.errors import MissingError, SpecError
from weightzoo.spec import (
    ActivationKind,
    ArchitectureName,
    Augmentation,
    Constant,
    Every,
    FixedSeeds,
    Initialisation,
    ListedSeeds,
    OneCycle,
    OptimizerKind,
    RandomSeeds,
    Scale,
    StepDecay,
    load_params,
    parse_params,
)

REMOVED = object()
SEARCH = {"kind": "search", "models": 20, "batch": 5}
FIRST_KEYS = "build: [a]\ndatasets: {digits: {}}\n"


def section(**changes: Any) -> dict[str, Any]:
    zoo: dict[str, Any] = {
        "dataset": "digits",
        "architecture": "cnn-s",
        "configuration": {"kind": "grid", "seeds": {"count": 2}},
        "factors": {"activation": ["tanh", "relu"]},
        "training": {},
    }
    return zoo | changes


def params(place: str = "", value: Any = None, **changes: Any) -> dict[str, Any]:
    """A correct file with one zoo `a`, in which `place` (dotted, below the zoo) is set to `value`."""
    content: dict[str, Any] = {"build": ["a"], "datasets": {"digits": {}}, "zoos": {"a": section(**changes)}}
    content = copy.deepcopy(content)
    if place:
        node: Any = content["zoos"]["a"]
        *sections, key = place.split(".")
        for name in sections:
            node = node[name]
        if value is REMOVED:
            del node[key]
        else:
            node[key] = value
    return content


def refusal(content: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parse_params(content, source="p.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        # unknown and missing keys: the nearest key of that very section
        ("trainin", {}, "trainin: unknown key; did you mean 'training'?"),
        ("training.epcohs", 5, "training.epcohs: unknown key; did you mean 'epochs'?"),
        ("training.kind", 5, "training.kind: unknown key; the keys here are epochs, batch_size, schedule, momentum, augmentation, precision, checkpoints"),
        ("learning_rate", [1e-3], "learning_rate: unknown key; it belongs below 'factors'"),
        ("seeds", [1], "seeds: unknown key; did you mean 'seed'?"),
        ("factors.init_", ["uniform"], "factors.init_: unknown key; did you mean 'init'?"),
        ("dataset", REMOVED, "dataset: missing; add `dataset`, the name of a section below `datasets`"),
        ("configuration", REMOVED, "configuration: missing; add `configuration`, e.g. {kind: grid, seeds: {count: 2}}"),
        ("configuration.seeds", REMOVED, "configuration.seeds: missing; add `seeds`: {count: N}, {random: N} or a list of seeds"),
        # kinds
        ("configuration.kind", "gird", "configuration.kind: got 'gird', expected one of 'seed', 'grid', 'search', 'evolution'; did you mean 'grid'?"),
        ("configuration.kind", REMOVED, "configuration.kind: missing; add one of 'seed', 'grid', 'search', 'evolution'"),
        ("configuration.kind", 3, "configuration.kind: got 3, expected one of 'seed', 'grid', 'search', 'evolution'"),
        ("configuration", None, "configuration: got nothing, expected a section with a `kind`, one of 'seed', 'grid', 'search', 'evolution'"),
        ("configuration", "grid", "configuration.seeds: missing; add `seeds`: {count: N}, {random: N} or a list of seeds"),
        ("training.schedule", "onecycle", "training.schedule: got 'onecycle', expected one of 'constant', 'one_cycle', 'cosine', 'step'; did you mean 'one_cycle'?"),
        ("training.schedule", {"kind": "step"}, "training.schedule.every: missing; add `every`, the number of epochs between two steps"),
        ("training.schedule", {"kind": "step", "every": 2, "facter": 0.3}, "training.schedule.facter: unknown key; did you mean 'factor'?"),
        ("training.schedule", {"kind": "one_cycle", "every": 2}, "training.schedule.every: unknown key; the keys here are kind, warmup, start_divisor, end_divisor, base_momentum, max_momentum"),
        ("training.schedule", {"kind": "one_cycle", "base_momentum": 0.96}, "training.schedule.base_momentum: got 0.96, which is above max_momentum, 0.95"),
        # factors
        ("factors.dropout", [1.5], "factors.dropout[0]: got 1.5, expected a number below 1"),
        ("factors.dropout", [0, -0.1], "factors.dropout[1]: got -0.1, expected a number of at least 0"),
        ("factors.dropout", 1.5, "factors.dropout: got 1.5, expected a number below 1"),
        ("factors.dropout", [True], "factors.dropout[0]: got true, expected a number"),
        ("factors.dropout", None, "factors.dropout: got nothing, expected a number"),
        ("factors.init", ["unifrom"], "factors.init[0]: got 'unifrom', expected 'uniform', 'normal', 'kaiming_uniform' or 'kaiming_normal'; did you mean 'uniform'?"),
        ("factors.optimizer", ["lion"], "factors.optimizer[0]: got 'lion', expected 'adam', 'adamw' or 'sgd'"),
        ("factors.learning_rate", ["1e-3", "3,4"], "factors.learning_rate[1]: got '3,4', expected a number"),
        ("factors.learning_rate", [float("nan")], "factors.learning_rate[0]: got nan, expected a number above 0"),
        ("factors.learning_rate", [float("inf")], "factors.learning_rate[0]: got inf, expected a number of at most 1000"),
        ("factors.learning_rate", [0], "factors.learning_rate[0]: got 0, expected a number above 0"),
        ("factors.learning_rate", [1e-3, 0.001], "factors.learning_rate[1]: 0.001 is there twice; remove one"),
        ("factors.weight_decay", [0, -0.0], "factors.weight_decay[1]: 0.0 is there twice; remove one"),
        ("factors.weight_decay", [], "factors.weight_decay: got an empty list, expected at least one value"),
        ("factors.weight_decay", {"low": 0, "high": 1}, "factors.weight_decay: a range, which only a search or an evolution can draw from; list values, or use kind: search"),
        ("factors", {}, None),
        ("factors", None, "factors: got nothing, expected a section of `key: value` lines"),
        # seeds
        ("configuration.seeds", {"random": 0}, "configuration.seeds.random: got 0, expected a number of at least 1"),
        ("configuration.seeds", {"random": 2, "cuont": 1}, "configuration.seeds.cuont: unknown key; the keys here are vary, random"),
        ("configuration.seeds", {"count": 1.5}, "configuration.seeds.count: got 1.5, expected a whole number"),
        ("configuration.seeds", {"count": 2_000_000}, "configuration.seeds.count: got 2000000, expected a number of at most 1000000"),
        ("configuration.seeds", {"first": 2**63 - 1, "count": 2}, "configuration.seeds.first: the last seed is above 2**63 - 1; start lower"),
        ("configuration.seeds", {}, "configuration.seeds.count: missing; add `count`, the number of seeds; or `random: N`; or a list of seeds"),
        ("configuration.seeds", 5, "configuration.seeds: got 5, expected {count: N}, {random: N} or a list of seeds"),
        ("configuration.seeds", [1, 2, -2], "configuration.seeds[2]: got -2, expected a number of at least 0"),
        ("configuration.seeds", [1, 2, 2], "configuration.seeds[2]: 2 is there twice; remove one"),
        ("configuration.seeds", [], "configuration.seeds: got an empty list, expected at least one value"),
        ("configuration.seeds", {"count": 2, "vary": ["odrer"]}, "configuration.seeds.vary[0]: got 'odrer', expected 'init', 'order' or 'dropout'; did you mean 'order'?"),
        ("configuration.seeds", {"count": 2, "vary": "dropout"}, "configuration.seeds.vary: without dropout, models that differ in its seed alone are equal"),
        ("configuration.seeds", {"count": 600_000}, ": 1,200,000 models, expected at most 1,000,000; list fewer values or seeds"),
        ("configuration", {"kind": "seed", "seeds": [1]}, "factors.activation: several values, a seed zoo has one; use kind: grid"),
        # training
        ("training.epochs", 0, "training.epochs: got 0, expected a number of at least 1"),
        ("training.epochs", True, "training.epochs: got true, expected a number"),
        ("training.epochs", "fifty", "training.epochs: got 'fifty', expected a whole number"),
        ("training.epochs", 10**30, f"training.epochs: got {10**30}, expected a number of at most 10000"),
        ("training.batch_size", 10**6, "training.batch_size: got 1000000, expected a number of at most 65536"),
        ("training.momentum", 1, "training.momentum: got 1, expected a number below 1"),
        ("training.checkpoints", 5, "training.checkpoints: got 5, expected all, {every: N} or a list of epochs"),
        ("training.checkpoints", "last", "training.checkpoints: got 'last', expected all, {every: N} or a list of epochs"),
        ("training.checkpoints", [0, 51], "training.checkpoints[1]: got 51, which is after the last epoch, 50"),
        ("training.checkpoints", [0, 0], "training.checkpoints[1]: 0 is there twice; remove one"),
        ("training.checkpoints", [], "training.checkpoints: got an empty list, expected at least one value"),
        ("training.checkpoints", {"every": 2, "first": 51}, "training.checkpoints.first: got 51, which is after the last epoch, 50"),
        ("configuration.members", 5, "configuration.members: got 5, the grid has 4 members"),
        ("configuration.members", 0, "configuration.members: got 0, expected a number of at least 1"),
        ("collections", ["a", "a"], "collections[1]: 'a' is there twice; remove one"),
        ("training.checkpoints", {"every": 0}, "training.checkpoints.every: got 0, expected a number of at least 1"),
        ("training.checkpoints", {"evry": 2}, "training.checkpoints.every: missing; add `every`, the number of epochs between two checkpoints\np.yaml: zoos.a.training.checkpoints.evry: unknown key; did you mean 'every'?"),
        ("training.augmentation", {}, "training.augmentation: nothing is to be done; set crop, flip or rotation, or leave augmentation out"),
        ("training.augmentation", {"crop": 0, "flip": False}, "training.augmentation: nothing is to be done; set crop, flip or rotation, or leave augmentation out"),
        ("training.augmentation", {"crop": 4, "flip": 1}, "training.augmentation.flip: got 1, expected true or false"),
        ("training.augmentation", {"crop": True}, "training.augmentation.crop: got true, expected a number"),
        ("training.augmentation", {"rotation": 200}, "training.augmentation.rotation: got 200, expected a number of at most 180"),
        ("training.augmentation", {"mirror": True}, "training.augmentation.mirror: unknown key; the keys here are crop, flip, rotation"),
        ("training.augmentation", "flip", "training.augmentation: got 'flip', expected a section of `key: value` lines"),
        ("training.precision", "float16", "training.precision: got 'float16', expected 'float32' or 'bfloat16'; did you mean 'bfloat16'?"),
        ("compile", "yes", "compile: got 'yes', expected true or false"),
        # the rest of a zoo
        ("dataset", "digit", "dataset: no data set 'digit' below `datasets`; did you mean 'digits'?"),
        ("architecture", "cnn_s", "architecture: got 'cnn_s', expected 'cnn-s', 'cnn-m', 'resnet-18' or 'cnn-gap'; did you mean 'cnn-s'?"),
        ("engine", "lane", "engine: got 'lane', expected 'auto', 'reference', 'torch' or 'lanes'; did you mean 'lanes'?"),
        ("device", "gpu", "device: got 'gpu', expected cpu, cuda, cuda:0, cuda:1, ... or mps"),
        ("seed", -1, "seed: got -1, expected a number of at least 0"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_with_place_and_remedy(place: str, value: Any, message: str | None) -> None:
    content = params(place, value)
    if message is None:
        parse_params(content)
    else:
        dot = "" if message.startswith(":") else "."
        assert refusal(content) == f"p.yaml: zoos.a{dot}{message}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"configuration": SEARCH, "factors": {}},
            "factors: every factor has one value, so there is nothing to search; use kind: seed",
        ),
        (
            {"configuration": SEARCH, "factors": {"learning_rate": {"low": 1e-3, "high": 1e-4}}},
            "factors.learning_rate.low: got 0.001, which is not below high, 0.0001",
        ),
        (
            {"configuration": SEARCH, "factors": {"weight_decay": {"low": 0, "high": 1, "log": True}}},
            "factors.weight_decay.low: a logarithmic range can't start at 0; give a small positive number",
        ),
        (
            {"configuration": SEARCH, "factors": {"learning_rate": {"low": 0, "high": 1}}},
            "factors.learning_rate.low: got 0, expected a number above 0",
        ),
        (
            {"configuration": SEARCH, "factors": {"dropout": {"low": 0, "high": 1}}},
            "factors.dropout.high: got 1.0, expected a number below 1",
        ),
        (
            {"configuration": SEARCH, "factors": {"dropout": {"low": 0, "hihg": 0.5}}},
            "factors.dropout.high: missing; add `high`, the largest value\n"
            "p.yaml: zoos.a.factors.dropout.hihg: unknown key; did you mean 'high'?",
        ),
        (
            {"configuration": SEARCH | {"seeds": {"count": 2}}},
            "configuration.seeds: unknown key; the keys here are kind, sampler, models, batch, objective, pruner",
        ),
        (
            {"configuration": {"kind": "search"}},
            "configuration.models: missing; add `models`, the number of models to train",
        ),
        (
            {"configuration": SEARCH | {"pruner": "median", "batch": 20}},
            "configuration.batch: got 20 for 20 models; a pruner compares with earlier batches, make it smaller",
        ),
        (
            {"configuration": SEARCH | {"pruner": {"warmup_epochs": 50}}},
            "configuration.pruner.warmup_epochs: got 50, which leaves nothing to prune before epoch 50",
        ),
        (
            {"configuration": SEARCH | {"pruner": {"kind": "halvin"}}},
            "configuration.pruner.kind: got 'halvin', expected 'median' or 'halving'; did you mean 'halving'?",
        ),
        (
            {"engine": "lanes", "device": "cuda"},
            "engine: got lanes, which runs on the cpu, not on cuda; use auto or torch",
        ),
        (
            {"architecture": "resnet-18", "factors": {"activation": ["relu", "tanh"], "dropout": [0, 0.5]}},
            "factors.dropout: got 0.5; resnet-18 has no dropout layers, leave it at 0",
        ),
        (
            {"architecture": "resnet-18", "configuration": SEARCH, "factors": {"dropout": {"low": 0, "high": 0.3}}},
            "factors.dropout: got 0.3; resnet-18 has no dropout layers, leave it at 0",
        ),
    ],
)
def test_sections_that_do_not_fit_together_are_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(params(**changes)) == f"p.yaml: zoos.a.{message}"


@pytest.mark.parametrize("kind", ["finetune", "sparsify"])
def test_descendants_are_trained_on_what_zoos_are(kind: str) -> None:
    own = {"start": {"zoo": "a"}, "engine": "lanes", "device": "cuda"}
    content = params() | {kind: {"b": own | ({"dataset": "digits"} if kind == "finetune" else {})}}
    assert (
        refusal(content) == f"p.yaml: {kind}.b.engine: got lanes, which runs on the cpu, not on cuda; use auto or torch"
    )


def test_several_mistakes_are_told_at_once_a_line_each() -> None:
    content = params("training.epochs", 0)
    content["zoos"]["a"]["factors"]["dropout"] = [0, 2, True]
    content["datasets"]["digits"]["sise"] = 28
    assert refusal(content).splitlines() == [
        "p.yaml: datasets.digits.sise: unknown key; did you mean 'size'?",
        "p.yaml: zoos.a.factors.dropout[1]: got 2, expected a number below 1",
        "p.yaml: zoos.a.factors.dropout[2]: got true, expected a number",
        "p.yaml: zoos.a.training.epochs: got 0, expected a number of at least 1",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"build": ["b"]}, "build[0]: no zoo 'b' below `zoos`; there are a"),
        ({"build": ["a", "a"]}, "build[1]: 'a' is there twice; remove one"),
        ({"build": "a"}, "build: got 'a', expected a list"),
        ({"dataset": {}}, "dataset: unknown key; did you mean 'datasets'?"),
        ({"zoos": [1]}, "zoos: got [1], expected a section of `key: value` lines"),
    ],
)
def test_the_top_of_the_file_is_checked(change: dict[str, Any], message: str) -> None:
    assert refusal(params() | change) == f"p.yaml: {message}"


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_a_file_without_sections_is_refused(content: Any) -> None:
    assert refusal(content).endswith("expected a section of `key: value` lines")


@pytest.mark.parametrize("name", ["", "a b", "../up", "a/b", "1st", ".hidden", "a.b", "ä", "a" * 65, 3, None])
def test_names_that_are_no_safe_file_names_are_refused(name: Any) -> None:
    content = params()
    content["zoos"][name] = section()
    assert "names are file names: a letter, then" in refusal(content)
    content = params()
    content["datasets"][name] = {}
    assert "names are file names: a letter, then" in refusal(content)


def test_a_zoo_may_be_called_like_a_key() -> None:
    content = params()
    content["zoos"]["training"] = section(epochs=3)
    assert refusal(content).startswith("p.yaml: zoos.training.epochs: unknown key; it belongs below 'training'")


def test_an_unknown_zoo_is_answered_with_the_nearest() -> None:
    content = params()
    content["zoos"]["digits-hyp"] = section()
    with pytest.raises(SpecError, match=r"no zoo 'digits-hpy' in params.yaml; did you mean 'digits-hyp'?"):
        parse_params(content).zoo("digits-hpy")


def test_shorthands() -> None:
    content = params("training.schedule", "one_cycle")
    content["zoos"]["a"]["factors"] = {"learning_rate": "3e-4", "init": "normal"}
    content["zoos"]["a"]["configuration"]["seeds"] = [3, 5]
    zoo = parse_params(content).zoo("a")
    assert zoo.training.schedule == OneCycle()
    assert zoo.factors.learning_rate == (3e-4,)
    assert zoo.factors.init == ("normal",)
    assert zoo.configuration.seeds == ListedSeeds(values=(3, 5))  # type: ignore[union-attr]


def test_the_protocol_of_the_published_resnets() -> None:
    content = params(architecture="resnet-18", engine="torch", compile=True)
    content["zoos"]["a"]["factors"] = {"optimizer": "sgd", "learning_rate": "0.05", "weight_decay": "5e-4"}
    content["zoos"]["a"]["training"] = {
        "epochs": 60,
        "batch_size": 128,
        "schedule": "one_cycle",
        "augmentation": {"flip": True, "rotation": 20},
        "precision": "bfloat16",
    }
    zoo = parse_params(content).zoo("a")
    assert zoo.training.augmentation == Augmentation(flip=True, rotation=20)
    assert (zoo.training.precision, zoo.compile) == ("bfloat16", True)
    assert parse_params(params()).zoo("a").training.augmentation is None


def test_negative_zero_is_zero() -> None:
    zoo = parse_params(params("factors.weight_decay", [-0.0])).zoo("a")
    assert str(zoo.factors.weight_decay) == "(0.0,)"


def test_kept_epochs() -> None:
    def kept(checkpoints: Any) -> tuple[int, ...]:
        zoo = section(training={"epochs": 5, "checkpoints": checkpoints})
        return parse_params(params(**zoo)).zoo("a").training.checkpoint_epochs

    assert kept("all") == (0, 1, 2, 3, 4, 5)
    assert kept({"every": 2}) == (0, 2, 4, 5)
    assert kept({"every": 9}) == (0, 5)
    assert kept({"every": 1, "first": 1}) == (1, 2, 3, 4, 5)
    assert kept({"every": 3, "first": 1}) == (1, 4, 5)
    assert kept([4, 1]) == (1, 4)


def test_the_architectures_are_those_that_can_be_built() -> None:
    assert set(get_args(ArchitectureName)) == set(ARCHITECTURES)


# ---- the file


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    """YAML 1.1 takes 3e-4 for text, 010 for eight and 1:30 for ninety; DVC reads YAML 1.2."""
    from dvc.utils.serialize import load_yaml

    path = written(
        tmp_path,
        FIRST_KEYS
        + "zoos: {a: {dataset: digits, architecture: cnn-s, seed: 010, configuration: {kind: seed, seeds: {count: 1_0}},"
        "  factors: {learning_rate: [3e-4], weight_decay: [1E-3], dropout: [.5]}}}",
    )
    zoo, raw = load_params(path).zoo("a"), load_yaml(str(path))["zoos"]["a"]
    assert (zoo.factors.learning_rate, zoo.factors.weight_decay, zoo.factors.dropout) == ((3e-4,), (1e-3,), (0.5,))
    assert zoo.seed == raw["seed"] == 10
    assert zoo.configuration.seeds.count == raw["configuration"]["seeds"]["count"] == 10  # type: ignore[union-attr]
    assert raw["factors"] == {"learning_rate": [3e-4], "weight_decay": [1e-3], "dropout": [0.5]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("build: [a]\nbuild: [b]\n", ':2: not valid YAML: found duplicate key "build"'),
        ("build: [a\nzoos: {}\n", ":2: not valid YAML: "),
        ("build: *nowhere\n", ":1: not valid YAML: found undefined alias"),
        ("build: !!python/object:os.system {}\n", ":1: not valid YAML: could not determine a constructor"),
        ("build: []\n---\nbuild: []\n", ":2: not valid YAML: "),
        ("\tbuild: []\n", ":1: not valid YAML: "),
        ("build: [\x00]\n", "not valid YAML: unacceptable character"),
        ("build: 2020-13-45\n", "not valid YAML: "),
        ("", "the file: got nothing"),
        (FIRST_KEYS + "zoos: &z {a: *z}\n", "zoos.a"),
    ],
)
def test_files_that_are_no_params_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_params(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "params.yaml"))
    assert message in str(caught.value).splitlines()[0]
    assert len(str(caught.value).splitlines()[0]) < 300 + len(str(tmp_path))


def test_a_missing_or_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes(b"build: \xff\xfe")
    with pytest.raises(SpecError, match="can't be read as text"):
        load_params(tmp_path / "params.yaml")


# ---- round trips


def _some(values: Any, most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=most, unique=True)


def _range(low: float, high: float) -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.lists(st.floats(low, high, exclude_max=True), min_size=2, max_size=2, unique=True).map(sorted)
    return st.builds(lambda pair, log: {"low": pair[0], "high": pair[1], "log": log}, bounds, st.booleans())


SEED = st.integers(0, 2**63 - 1)
VARY = st.lists(st.sampled_from(["init", "order"]), min_size=1, unique=True)
SEEDS = st.one_of(
    _some(SEED),
    st.fixed_dictionaries({"count": st.integers(1, 99)}, optional={"first": st.integers(0, 99), "vary": VARY}),
    st.fixed_dictionaries({"random": st.integers(1, 99)}, optional={"vary": VARY}),
)
LISTS = {
    "init": _some(st.sampled_from(get_args(Initialisation))),
    "activation": _some(st.sampled_from(get_args(ActivationKind))),
    "optimizer": _some(st.sampled_from(get_args(OptimizerKind))),
    "learning_rate": _some(st.floats(1e-12, 1000)),
    "weight_decay": _some(st.floats(0, 1000)),
    "dropout": _some(st.floats(0, 1, exclude_max=True)),
}
RANGES = {
    "learning_rate": _range(1e-12, 1000),
    "weight_decay": _range(1e-12, 1000),
    "dropout": _range(1e-12, 1),
}
SEARCHES = st.fixed_dictionaries(
    {"kind": st.just("search"), "models": st.integers(11, 999), "batch": st.integers(1, 10)},
    optional={
        "sampler": st.sampled_from(["random", "qmc", "tpe"]),
        "objective": st.sampled_from(["val_accuracy", "val_loss"]),
        "pruner": st.sampled_from(["median", "halving", {"kind": "halving", "warmup_epochs": 1, "reduction": 2}, None]),
    },
)
TRAININGS = st.fixed_dictionaries(
    {"epochs": st.integers(20, 10_000)},
    optional={
        "batch_size": st.integers(1, 65_536),
        "momentum": st.floats(0, 1, exclude_max=True),
        "checkpoints": st.one_of(st.just("all"), st.just({"every": 3}), _some(st.integers(0, 20))),
        "schedule": st.sampled_from(
            ["constant", "one_cycle", {"kind": "step", "every": 3}, {"kind": "cosine", "end": 0.1}]
        ),
    },
)


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    searching = draw(st.booleans())
    factors = draw(st.fixed_dictionaries({}, optional=LISTS))
    if searching:
        factors |= draw(st.fixed_dictionaries({"dropout": RANGES["dropout"]}))
        factors |= draw(st.fixed_dictionaries({}, optional=RANGES))
    configuration = draw(SEARCHES) if searching else {"kind": "grid", "seeds": draw(SEEDS)}
    return section(configuration=configuration, factors=factors, training=draw(TRAININGS), seed=draw(SEED))


@settings(max_examples=60, deadline=None)
@given(zoo=sections())
def test_what_was_read_can_be_written_and_read_again(zoo: dict[str, Any]) -> None:
    read = parse_params(params(**zoo))
    file = io.StringIO()
    YAML().dump(read.model_dump(mode="json"), file)
    assert parse_params(YAML(typ="safe").load(file.getvalue())) == read


@settings(max_examples=200, deadline=None)
@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "seeds", "a", "low", "every", "grid", "=grid"]) | st.integers(), inner),
        max_leaves=8,
    ),
    place=st.sampled_from(
        ["configuration", "configuration.seeds", "factors", "factors.dropout", "training", "training.schedule",
         "training.checkpoints", "engine", "seed"]
    ),
)  # fmt: skip
def test_anything_at_all_is_read_or_refused(data: Any, place: str) -> None:
    try:
        parse_params(params(place, data), source="p.yaml")
    except SpecError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(line.startswith("p.yaml: ") and len(line) < 400 for line in lines)


def test_kinds_of_seeds_and_schedules_are_told_apart() -> None:
    assert isinstance(
        parse_params(params("configuration.seeds", {"random": 3})).zoo("a").configuration.seeds, RandomSeeds
    )  # type: ignore[union-attr]
    assert isinstance(
        parse_params(params("configuration.seeds", {"count": 3})).zoo("a").configuration.seeds, FixedSeeds
    )  # type: ignore[union-attr]
    assert parse_params(params()).zoo("a").training.schedule == Constant()
    step = parse_params(params("training.schedule", {"kind": "step", "every": 3})).zoo("a").training.schedule
    assert step == StepDecay(every=3, factor=0.1)
    assert parse_params(params("training.checkpoints", {"every": 3})).zoo("a").training.checkpoints == Every(every=3)


@pytest.mark.parametrize(
    ("rehearsal", "message"),
    [
        ({"cnn-s": {"membrs": 5}}, "rehearsal.cnn-s.membrs: unknown key; did you mean 'members'?"),
        ({"cnn-s": {"images": 0}}, "rehearsal.cnn-s.images: got 0, expected a number of at least 1"),
        ({"cnn-s": 5}, "rehearsal.cnn-s: got 5, expected a section of `key: value` lines"),
    ],
)
def test_the_scale_of_rehearsals(rehearsal: Any, message: str) -> None:
    assert refusal(params() | {"rehearsal": rehearsal}) == f"p.yaml: {message}"
    assert parse_params(params() | {"rehearsal": {"cnn-m": {"members": 3}}}).rehearsal["cnn-m"] == Scale(members=3)


def test_a_scale_is_given_by_architecture() -> None:
    message = refusal(params() | {"rehearsal": {"cnn-x": {}}})
    assert message.startswith("p.yaml: rehearsal.cnn-x: ")
    assert "'cnn-s'" in message


def test_the_number_of_models() -> None:
    def models(configuration: dict[str, Any], **factors: Any) -> int:
        return parse_params(params(configuration=configuration, factors=factors)).zoo("a").models

    assert models({"kind": "seed", "seeds": [4, 5, 6]}) == 3
    assert models({"kind": "grid", "seeds": {"random": 10}}, dropout=[0, 0.5], init=["normal", "uniform"]) == 40
    assert models({"kind": "grid", "seeds": {"random": 10}, "members": 7}, dropout=[0, 0.5]) == 7
    assert models({"kind": "search", "models": 9}, dropout=[0, 0.5]) == 9
