"""Zoos in small: what a rehearsal keeps of its zoo, what it makes smaller, and that nothing of the two is mixed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import inside, run
from weightzoo.datasets.description import describe
from weightzoo.errors import SpecError
from weightzoo.inspection import describe as describe_zoo
from weightzoo.plan import make_plan
from weightzoo.population import population
from weightzoo.registry import Registry
from weightzoo.rehearsal import SUFFIX, origin, rehearsed, sections
from weightzoo.spec import Scale, ZooSpec, load_params, parse_params
from weightzoo.workspace import Workspace
from weightzoo.zoo import Zoo

ROOT = Path(__file__).parent.parent
PARAMS = load_params(ROOT / "params.yaml")
SMALL = Scale(members=8, images=100, epochs=2)


def one(configuration: Any, **section: Any) -> ZooSpec:
    zoo = {"dataset": "digits", "architecture": "cnn-s", "configuration": configuration} | section
    return parse_params({"build": ["a"], "datasets": {"digits": {}}, "zoos": {"a": zoo}}).zoo("a")


@pytest.mark.parametrize("name", PARAMS.zoos)
def test_every_zoo_of_the_catalogue_plans_its_rehearsal(name: str) -> None:
    whole, scale = PARAMS.zoo(name), PARAMS.rehearsal[PARAMS.zoo(name).architecture]
    plan = make_plan(name + SUFFIX, PARAMS, calibrate=False)
    assert plan.models == scale.members
    assert plan.epochs == scale.epochs
    assert plan.data.counts["train"] == scale.images
    assert plan.architecture == whole.architecture
    assert plan.dataset == whole.dataset + SUFFIX
    for factor, values in make_plan(name, PARAMS, calibrate=False).factors.items():
        assert factor == "seeds" or plan.factors[factor] == values


@pytest.mark.parametrize("name", ["digits-hyp", "usps-cnn-s-hyp-10-rand", "svhn-cnn-s-hyp-10-fix-released"])
def test_members_are_those_of_the_zoo_but_for_images_and_epochs(name: str) -> None:
    whole = {(member.hyperparameters, member.seeds) for member in population(PARAMS.zoo(name), "any").ask()}
    spec, _ = sections(name + SUFFIX, PARAMS)
    members = population(spec, "other").ask()
    assert {(member.hyperparameters, member.seeds) for member in members} < whole
    for factor in ("init", "activation", "optimizer", "learning_rate", "weight_decay", "dropout"):
        taken = {getattr(member.hyperparameters, factor) for member in members}
        assert taken == set(getattr(PARAMS.zoo(name).factors, factor))
    assert not {member.id for member in members} & {member.id for member in population(PARAMS.zoo(name), "any").ask()}


@pytest.mark.parametrize(
    ("seeds", "first"),
    [
        ({"first": 5, "count": 20}, [5, 6, 7]),
        ([9, 4, 7, 2], [9, 4, 7]),
        ({"first": 5, "count": 2}, [5, 6]),
    ],
)
def test_a_seed_zoo_keeps_its_first_seeds(seeds: Any, first: list[int]) -> None:
    small = rehearsed(one({"kind": "seed", "seeds": seeds}), Scale(members=3))
    assert [member.seeds.init for member in population(small, "any").ask()] == first


def test_random_seeds_are_those_of_the_zoo() -> None:
    spec = one({"kind": "seed", "seeds": {"random": 20, "vary": ["init"]}})
    whole = [member.seeds for member in population(spec, "any").ask()]
    assert [member.seeds for member in population(rehearsed(spec, SMALL), "any").ask()] == whole[:8]


@pytest.mark.parametrize(
    ("search", "epochs", "small"),
    [
        ({"models": 48, "batch": 16, "pruner": "median"}, 2, (8, 2, 1)),
        ({"models": 48, "batch": 16, "pruner": "median"}, 1, (8, 2, None)),
        ({"models": 48, "batch": 47, "pruner": "halving"}, 9, (8, 7, 5)),
        ({"models": 5, "batch": 64}, 2, (5, 64, None)),
    ],
)
def test_a_search_draws_fewer_in_smaller_batches(search: Any, epochs: int, small: tuple[int, int, int | None]) -> None:
    spec = one({"kind": "search", **search}, factors={"dropout": [0, 0.5]})
    configuration: Any = rehearsed(spec, Scale(members=8, epochs=epochs)).configuration
    warmup = configuration.pruner and configuration.pruner.warmup_epochs
    assert (configuration.models, configuration.batch, warmup) == small


@pytest.mark.parametrize(
    ("checkpoints", "kept"),
    [
        ("all", (0, 1, 2)),
        ({"every": 1, "first": 1}, (1, 2)),
        ({"every": 5, "first": 7}, (2,)),
        ([0, 1, 7], (0, 1)),
        ([7], (2,)),
    ],
)
def test_kept_epochs_follow(checkpoints: Any, kept: tuple[int, ...]) -> None:
    training = {"epochs": 10, "checkpoints": checkpoints, "schedule": "one_cycle", "momentum": 0.5, "batch_size": 7}
    small = rehearsed(one({"kind": "seed", "seeds": [1]}, training=training), SMALL).training
    assert small.checkpoint_epochs == kept
    assert (small.epochs, small.schedule.kind, small.momentum, small.batch_size) == (2, "one_cycle", 0.5, 7)


def test_images_are_fewer_in_proportion_and_never_more() -> None:
    def counts(images: int, **dataset: Any) -> dict[str, int]:
        zoo = {"dataset": "d", "architecture": "cnn-s", "configuration": {"kind": "seed", "seeds": [1]}}
        scale = {"cnn-s": {"images": images}}
        params = parse_params({"build": [], "rehearsal": scale, "datasets": {"d": dataset}, "zoos": {"a": zoo}})
        return describe("d", sections(f"a{SUFFIX}", params)[1]).counts

    assert counts(500, source="mnist") == {"train": 500, "val": 100, "test": 100}
    assert counts(500, source="stl10", size=28) == {"train": 500, "val": 95, "test": 952}
    assert counts(9999, train=50, val=7) == {"train": 50, "val": 7, "test": 360}
    assert counts(1, source="mnist") == {"train": 1, "val": 1, "test": 1}


def test_a_scale_larger_than_the_zoo_leaves_it_as_it_is() -> None:
    spec = one({"kind": "grid", "seeds": [1, 2]}, training={"epochs": 2}, factors={"dropout": [0, 0.5]})
    small = rehearsed(spec, Scale(members=99, epochs=99))
    assert small.training == spec.training
    assert [member.seeds for member in population(small, "").ask()] == [one.seeds for one in population(spec, "").ask()]


def test_a_section_of_that_name_is_a_zoo_like_any_other() -> None:
    zoo = {"dataset": "digits", "architecture": "cnn-s", "configuration": {"kind": "seed", "seeds": [1]}}
    content = {"build": [], "datasets": {"digits": {}}, "zoos": {"a": zoo, "a-rehearsal": zoo}}
    params = parse_params(content)
    assert sections("a-rehearsal", params) == (params.zoos["a-rehearsal"], params.datasets["digits"])
    assert origin("a-rehearsal", params) is None
    assert origin("a", params) is None
    assert origin("a-rehearsal-rehearsal", params) == {"of": "a-rehearsal", "members": 16, "images": 500, "epochs": 2}


def test_a_rehearsal_of_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match=r"no zoo 'digits-hpy' in params.yaml; did you mean 'digits-hyp'"):
        sections("digits-hpy-rehearsal", PARAMS)


# ---- all steps, on the digits


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """The current folder, with one whole zoo, its rehearsal to come."""
    folder = tmp_path_factory.mktemp("rehearsed")
    zoo = {
        "dataset": "digits",
        "architecture": "cnn-s",
        "configuration": {"kind": "grid", "seeds": {"random": 2}},
        "factors": {"activation": ["relu"], "learning_rate": [0.01, 0.001], "dropout": [0, 0.5]},
        "training": {"epochs": 3, "checkpoints": {"every": 1, "first": 1}},
    }
    content = {
        "build": ["a"],
        "rehearsal": {"cnn-s": {"members": 4, "images": 40, "epochs": 2}},
        "datasets": {"digits": {"train": 100, "val": 20, "test": 60}},
        "zoos": {"a": zoo},
    }
    (folder / "params.yaml").write_text(json.dumps(content))
    (folder / "mlruns").mkdir()
    shutil.copy(empty_database, folder / "mlruns")
    with inside(folder):
        for verb in ("prepare", "train", "assemble"):
            code, said = run(verb, "a")
            assert code == 0, said
        yield folder


def contents(zoo: str) -> dict[str, str]:
    """The hashes of all files of a zoo that building again must not change."""
    files = [*Path().glob(f"data/{zoo}/*"), *Path().glob(f"zoos/{zoo}/*"), Path(f"zoos/{zoo}.members.json")]
    hashes = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return {name: content for name, content in hashes.items() if "provenance" not in name}


def test_a_rehearsal_is_a_zoo_beside_the_zoo(built: Path) -> None:
    before = contents("a")

    code, said = run("rehearse", "a")

    assert code == 0, said
    assert [line.split()[0] for line in said.splitlines()] == ["prepare", "train", "assemble", "report"]
    assert contents("a") == before
    whole, small = Zoo.open("zoos/a"), Zoo.open("zoos/a-rehearsal")
    assert (len(whole.models), len(small.models)) == (8, 4)
    assert (whole.checkpoint_epochs, small.checkpoint_epochs) == ((1, 2, 3), (1, 2))
    assert set(small.models["dropout"]) == {0.0, 0.5}
    assert small.header.spec is not None
    assert small.header.spec["rehearsal"] == {"of": "a", "members": 4, "images": 40, "epochs": 2}
    assert "rehearsal" not in (whole.header.spec or {})
    assert not set(whole.models["member"]) & set(small.models["member"])
    page = Path("reports/a-rehearsal/index.html").read_text()
    assert "of a, with at most 4 models, 40 training images, 2 epochs" in page


def test_runs_are_not_mixed(built: Path) -> None:
    registry = Registry()
    assert {run.zoo for run in registry.query("dataset == 'digits'").runs} == {"a"}
    assert len(registry.query("dataset == 'digits'")) == 8
    assert {run.zoo for run in registry.query("dataset == 'digits-rehearsal'").runs} == {"a-rehearsal"}


def test_it_can_be_looked_at_and_done_again_like_any_zoo(built: Path) -> None:
    before = contents("a-rehearsal")
    assert describe_zoo("a-rehearsal", Workspace())["rehearsal of"] == "a"
    assert run("verify", "a-rehearsal") == (0, "")
    code, said = run("rehearse", "a")
    assert code == 0
    assert "0 trained now" in said
    assert contents("a-rehearsal") == before


def test_a_wrong_name_is_one_line(built: Path) -> None:
    assert run("rehearse", "b") == (1, "error: no zoo 'b' in params.yaml; there are a\n")
