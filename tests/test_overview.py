"""The catalogue in `params.yaml`, row by row against Table 1 of the paper, and the table that sums it up."""

from __future__ import annotations

import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from weightzoo.datasets.description import describe
from weightzoo.overview import Overview, overview
from weightzoo.plan import make_plan
from weightzoo.population import grid, population
from weightzoo.spec import Augmentation, Params, ZooSpec, load_params, parse_params

ROOT = Path(__file__).parent.parent

INITS = {"U": "uniform", "N": "normal", "KU": "kaiming_uniform", "KN": "kaiming_normal"}
ACTIVATIONS = {"T": "tanh", "S": "sigmoid", "R": "relu", "G": "gelu"}
OPTIMIZERS = {"AD": "adam", "SGD": "sgd"}

# Schürholt et al. 2022, table 1: init, activation, optimiser, learning rate, weight decay, dropout
SEED_ROWS = {
    "mnist-cnn-s": "U | T | AD | 3e-4 | 0 | 0",
    "fashion-mnist-cnn-s": "U | T | AD | 3e-4 | 0 | 0",
    "svhn-cnn-s": "U | T | AD | 3e-3 | 0 | 0",
    "usps-cnn-s": "U | T | AD | 3e-4 | 1e-3 | 0",
    "cifar10-cnn-s": "KU | G | AD | 1e-4 | 1e-2 | 0",
    "cifar10-cnn-m": "KU | G | AD | 1e-4 | 1e-2 | 0",
    "stl10-cnn-s": "KU | T | AD | 1e-4 | 1e-3 | 0",
    "stl10-cnn-m": "KU | T | AD | 1e-4 | 1e-3 | 0",
}
HYP_ROWS = {
    "mnist-cnn-s": "U N KU KN | T S R G | AD SGD | 1e-3 1e-4 | 1e-3 1e-4 | 0 0.5",
    "fashion-mnist-cnn-s": "U N KU KN | T S R G | AD SGD | 1e-3 1e-4 | 1e-3 1e-4 | 0 0.5",
    "svhn-cnn-s": "U N KU KN | T S R G | AD SGD | 1e-3 1e-4 | 1e-3 1e-4 0 | 0 0.3 0.5",
    "usps-cnn-s": "U N KU KN | T S R G | AD SGD | 1e-3 1e-4 | 1e-2 1e-3 | 0 0.5",
    "cifar10-cnn-s": "U N KU KN | T S R G | AD SGD | 1e-3 | 1e-2 1e-3 | 0 0.5",
    "cifar10-cnn-m": "U N KU KN | T S R G | AD SGD | 1e-3 | 1e-2 1e-3 | 0 0.5",
    "stl10-cnn-s": "U N KU KN | T S R G | AD SGD | 1e-3 1e-4 | 1e-2 1e-3 | 0 0.5",
    "stl10-cnn-m": "U N KU KN | T S R G | AD SGD | 1e-3 1e-4 | 1e-2 1e-3 | 0 0.5",
}
SVHN_RELEASED = "U N KU KN | T S R G | SGD | 1e-2 1e-3 1e-4 | 0 1e-3 1e-1 | 0 0.3 0.5"
# images: train and validation (test is the official set), channels, pixels of a side; parameters of a model
DATA = {
    "mnist-cnn-s": (50_000, 10_000, 1, 28, 2_464),
    "fashion-mnist-cnn-s": (50_000, 10_000, 1, 28, 2_464),
    "svhn-cnn-s": (60_000, 13_257, 1, 28, 2_464),
    "usps-cnn-s": (6_000, 1_291, 1, 28, 2_464),
    "cifar10-cnn-s": (42_000, 8_000, 3, 28, 2_864),
    "cifar10-cnn-m": (42_000, 8_000, 3, 32, 10_853),
    "stl10-cnn-s": (4_200, 800, 3, 28, 2_864),
    "stl10-cnn-m": (4_200, 800, 3, 32, 10_853),
}
POINTS = dict(zip(HYP_ROWS, (256, 256, 576, 256, 128, 128, 256, 256), strict=True))
HYP = ("hyp-10-rand", "hyp-10-fix")
# data set: train and validation images, pixels, parameters, epochs, batch, one-cycle maximum of the released code
RESNETS = {
    "cifar10": (40_000, 10_000, 32, 11_173_962, 50, 256, 0.05),
    "cifar100": (40_000, 10_000, 32, 11_220_132, 60, 128, 0.1),
    "tiny-imagenet": (90_000, 10_000, 64, 11_271_432, 60, 128, 0.1),
}


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def everything(params: Params) -> Overview:
    return overview(params)


def row_of(spec: ZooSpec) -> list[set[Any]]:
    factors = spec.factors
    return [set(getattr(factors, name)) for name in type(factors).model_fields]


def parsed(row: str) -> list[set[Any]]:
    inits, activations, optimizers, *numbers = (cell.split() for cell in row.split("|"))
    return [
        {INITS[name] for name in inits},
        {ACTIVATIONS[name] for name in activations},
        {OPTIMIZERS[name] for name in optimizers},
        *({float(number) for number in cell} for cell in numbers),
    ]


@pytest.mark.parametrize("family", SEED_ROWS)
def test_a_seed_row(params: Params, family: str) -> None:
    spec = params.zoo(f"{family}-seed")
    assert row_of(spec) == parsed(SEED_ROWS[family])
    members = population(spec, "any").ask()
    assert [member.seeds.init for member in members] == list(range(1, 1001))
    assert spec.models == 1000


@pytest.mark.parametrize("family", HYP_ROWS)
@pytest.mark.parametrize("seeds", HYP)
def test_a_grid_row(params: Params, family: str, seeds: str) -> None:
    spec = params.zoo(f"{family}-{seeds}")
    assert row_of(spec) == parsed(HYP_ROWS[family])
    points = grid(spec)
    assert len(points) == POINTS[family]
    members = population(spec, "any").ask()
    assert len(members) == spec.models == 10 * POINTS[family]
    drawn = [{one.seeds.init for one in members if one.hyperparameters == point} for point in points[:3]]
    if seeds == "hyp-10-fix":
        assert drawn == 3 * [set(range(1, 11))]
    else:
        assert [len(own) for own in drawn] == [10, 10, 10]
        assert not drawn[0] & drawn[1]


@pytest.mark.parametrize("seeds", HYP)
def test_the_released_grid_of_svhn(params: Params, seeds: str) -> None:
    spec = params.zoo(f"svhn-cnn-s-{seeds}-released")
    assert row_of(spec) == parsed(SVHN_RELEASED)
    assert spec.models == 4320


@pytest.mark.parametrize(("family", "zoo"), list(itertools.product(DATA, ("seed", *HYP))))
def test_images_architecture_and_protocol(params: Params, everything: Overview, family: str, zoo: str) -> None:
    spec = params.zoo(f"{family}-{zoo}")
    (row,) = (row for row in everything.zoos if row.name == f"{family}-{zoo}")
    data = describe(spec.dataset, params.datasets[spec.dataset])
    train, val, channels, size, parameters = DATA[family]
    assert (data.counts["train"], data.counts["val"], data.image_shape) == (train, val, (channels, size, size))
    assert (row.architecture, row.parameters) == (family[-5:], parameters)
    training = spec.training
    assert (training.epochs, training.batch_size, training.schedule.kind, training.momentum) == (
        50,
        10,
        "constant",
        0.9,
    )
    assert training.checkpoint_epochs == tuple(range(51))
    assert training.augmentation is None


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("variant", ["", "-released"])
def test_a_resnet_row(params: Params, everything: Overview, name: str, variant: str) -> None:
    zoo = f"{name}-resnet-18-seed{variant}"
    spec = params.zoo(zoo)
    (row,) = (row for row in everything.zoos if row.name == zoo)
    train, val, size, parameters, epochs, batch, highest = RESNETS[name]
    rate = 1e-4 if not variant else highest
    assert row_of(spec) == [{"kaiming_uniform"}, {"relu"}, {"sgd"}, {rate}, {5e-4}, {0.0}]
    assert [member.seeds.init for member in population(spec, "any").ask()] == list(range(1, 1001))
    data = describe(spec.dataset, params.datasets[spec.dataset])
    assert (data.counts["train"], data.counts["val"], data.image_shape) == (train, val, (3, size, size))
    assert (row.architecture, row.parameters, row.states) == ("resnet-18", parameters, 1000 * epochs)
    training = spec.training
    assert (training.epochs, training.batch_size, training.momentum) == (epochs, batch, 0.9)
    assert training.schedule.kind == "one_cycle"
    assert training.augmentation == (
        Augmentation(flip=True, rotation=20) if name == "tiny-imagenet" else Augmentation(crop=4, flip=True)
    )
    assert training.checkpoint_epochs == tuple(range(1, epochs + 1))


def test_the_catalogue_has_the_counts_of_the_paper(everything: Overview) -> None:
    """The headline of the paper is reached with the released grid of SVHN; that of its table has 2,880 models more."""
    sums = {row.name: row for row in everything.collections}
    assert {name: (row.zoos, row.models) for name, row in sums.items()} == {
        "table-1": (27, 53_240),
        "released": (27, 50_360),
    }
    assert sums["released"].states == 47_360 * 51 + 1000 * 50 + 2000 * 60 == 2_585_360
    assert sums["released"].states_with_twins == 3_844_360
    families = {
        "mnist-cnn-s": 6120, "fashion-mnist-cnn-s": 6120, "svhn-cnn-s": 9640, "usps-cnn-s": 6120, "cifar10-cnn-s": 3560,
        "cifar10-cnn-m": 3560, "stl10-cnn-s": 6120, "stl10-cnn-m": 6120, "cifar10-resnet-18": 1000,
        "cifar100-resnet-18": 1000, "tiny-imagenet-resnet-18": 1000,
    }  # fmt: skip
    released = [zoo for zoo in everything.zoos if "released" in zoo.collections]
    assert families == {
        family: sum(zoo.models for zoo in released if zoo.name.startswith(family)) for family in families
    }


def test_the_table_of_the_readme(everything: Overview) -> None:
    zoos = {zoo.name: zoo for zoo in everything.zoos}
    rows = re.findall(
        r"^\| `([a-z0-9-]+)-seed`.* \| (.*), (\S+) \| ([0-9,]+) \| ([0-9,+x ]+) \| ([0-9,]+) \|$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 11
    for family, _, shape, parameters, models, states in rows:
        own = [zoos[name] for kind in ("seed", *HYP) if (name := f"{family}-{kind}") in zoos]
        seed, *grids = [f"{zoo.models:,}" for zoo in own]
        assert models == (f"{seed} + 2 x {grids[0]}" if grids else seed)
        assert len(set(grids)) <= 1
        assert states == f"{sum(zoo.states for zoo in own):,}"
        assert parameters == f"{own[0].parameters:,}"
        assert shape == "x".join(map(str, own[0].image_shape))


def test_the_names(everything: Overview) -> None:
    named = {zoo.name for zoo in everything.zoos if "table-1" in zoo.collections}
    small = {f"{family}-{kind}" for family in DATA for kind in ("seed", *HYP)}
    assert named == small | {f"{name}-resnet-18-seed" for name in RESNETS}
    beside = {zoo.name for zoo in everything.zoos if zoo.name.endswith("-released")}
    assert {name.removesuffix("-released") for name in beside} < named
    assert {zoo.name for zoo in everything.zoos if zoo.collections == ("released",)} == beside


def test_a_plan_agrees_with_the_table(params: Params, everything: Overview) -> None:
    for row in everything.zoos:
        if row.models <= 1280:
            plan = make_plan(row.name, params, calibrate=False)
            assert (plan.models, plan.states, plan.parameters) == (row.models, row.states, row.parameters)
            assert plan.disk.checkpoints == row.weight_bytes


def test_the_default_build_has_none_of_the_catalogue(params: Params) -> None:
    assert not any(params.zoo(name).collections for name in params.build)


def test_no_zoo_shares_a_section_with_another() -> None:
    """`dvc exp run -S` edits the file in place: where two zoos had one section, it would edit both, or neither."""
    content = YAML(typ="rt").load(ROOT / "params.yaml")
    places: dict[int, str] = {}
    for place, section in sections(content["zoos"], "zoos"):
        assert id(section) not in places, f"{place} is {places[id(section)]}; merge it with `<<` instead"
        places[id(section)] = place


def sections(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield f"{place}.{key}", value
            yield from sections(value, f"{place}.{key}")


def test_dvc_reads_the_catalogue_and_an_experiment_changes_one_zoo_alone(tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides
    from dvc.utils.serialize import load_yaml

    shutil.copy(ROOT / "params.yaml", tmp_path)
    file = tmp_path / "params.yaml"
    before = load_yaml(file)
    assert parse_params(before) == load_params(file)

    apply_overrides(str(file), ["zoos.usps-cnn-s-hyp-10-fix.factors.dropout=[0.25]"])

    after = load_yaml(file)
    before["zoos"]["usps-cnn-s-hyp-10-fix"]["factors"]["dropout"] = [0.25]
    assert after == before


# ---- the table


def shown(made: Overview, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(made.render())
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal(everything: Overview, width: int) -> None:
    lines = shown(everything, width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["stl10-cnn-m-hyp-10-fix"] == ["2,560", "130,560", "194,560", "5.67", "GB"]
    assert set(rows) >= {zoo.name for zoo in everything.zoos}
    assert any(re.match(r"released \(27 zoos\) +50,360 +2,585,360 +3,844,360 ", line) for line in lines)


def test_a_long_name_is_folded_not_cut() -> None:
    name = "a" + 63 * "b"
    seeds = {"kind": "seed", "seeds": [1, 2]}
    zoo = {"dataset": "digits", "architecture": "cnn-s", "configuration": seeds, "collections": "mine"}
    made = overview(parse_params({"build": [], "datasets": {"digits": {}}, "zoos": {name: zoo}}))
    lines = shown(made, 80)
    assert max(map(len, lines)) <= 80
    assert "".join(line.split()[0] for line in lines[1:3]) == name
    assert [(row.name, row.zoos, row.models) for row in made.collections] == [("mine", 1, 2)]


def test_json_is_plain_and_complete(everything: Overview) -> None:
    plain = everything.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == json.loads(json.dumps(plain))
    assert sum(zoo["models"] for zoo in plain["zoos"]) == plain["total"]["models"]
    (one,) = (zoo for zoo in plain["zoos"] if zoo["name"] == "mnist-cnn-s-seed")
    assert one["states"] == 51_000
    assert one["collections"] == ("table-1", "released")


def test_nothing_is_trained_unless_asked(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    small = params.model_copy(update={"zoos": {"digits-seed": params.zoo("digits-seed")}})
    asked: list[str] = []

    class Planned:
        seconds = 7.0

    def plan(name: str, _: Params) -> Planned:
        asked.append(name)
        return Planned()

    monkeypatch.setattr("weightzoo.plan.make_plan", plan)
    assert overview(small).total.seconds is None
    assert asked == []
    timed = overview(small, calibrate=True)
    assert (asked, timed.total.seconds) == (["digits-seed"], 7.0)
    assert shown(timed, 80)[1].split()[-2:] == ["7", "s"]


def test_the_command_needs_no_data_and_no_torch(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    code = """
import sys
from weightzoo.cli import app
app(["plan", "--all", "--json"], standalone_mode=False)
assert not {"torch", "mlflow", "optuna"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["zoos"]) == len(load_params(ROOT / "params.yaml").zoos)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
