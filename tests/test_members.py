from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from weightzoo.errors import FormatError
from weightzoo.members import Cohort, Hyperparameters, Member, Parent, Protocol, Seeds, cohorts
from weightzoo.spec import Augmentation, Constant, OneCycle

BASE = Member(
    dataset="digits",
    dataset_hash="0123456789abcdef",
    architecture="cnn-s",
    hyperparameters=Hyperparameters("uniform", "tanh", "adam", 3e-4, 0.0, 0.0),
    seeds=Seeds(1, 2, 3),
    protocol=Protocol(50, 10, Constant(), 0.9, tuple(range(51))),
    config_kind="grid",
)


def change(member: Member = BASE, **values: Any) -> Member:
    """The member with a hyperparameter, seed, protocol value or field of its own changed."""
    for name, value in values.items():
        for part in ("hyperparameters", "seeds", "protocol"):
            own = getattr(member, part)
            if name in {field.name for field in dataclasses.fields(own)}:
                member = dataclasses.replace(member, **{part: dataclasses.replace(own, **{name: value})})
                break
        else:
            member = dataclasses.replace(member, **{name: value})
    return member


VARIANTS = [
    change(augmentation=Augmentation(crop=4)),
    change(augmentation=Augmentation(crop=4, flip=True)),
    change(augmentation=Augmentation(rotation=20)),
    change(precision="bfloat16"),
    change(dataset_hash="f" * 16),
    change(architecture="cnn-m"),
    change(init="normal"),
    change(activation="relu"),
    change(optimizer="sgd"),
    change(learning_rate=3.0000001e-4),
    change(weight_decay=1e-3),
    change(dropout=0.5),
    dataclasses.replace(BASE, seeds=Seeds(2, 2, 3)),
    dataclasses.replace(BASE, seeds=Seeds(1, 3, 3)),
    dataclasses.replace(BASE, seeds=Seeds(1, 2, 4)),
    change(epochs=49),
    change(batch_size=11),
    change(momentum=0.8),
    change(schedule=OneCycle(kind="one_cycle")),
    change(schedule=OneCycle(kind="one_cycle", warmup=0.2)),
]


def test_the_id_covers_everything_that_decides_the_weights() -> None:
    assert len({member.id for member in [BASE, *VARIANTS]}) == 1 + len(VARIANTS)
    assert change(config_kind="seed").id == BASE.id  # says how the member came about, not what it is


def test_ids_stay_what_they_were() -> None:
    """Stores of runs are addressed by them."""
    assert BASE.id == "bea14ebf0be8fd74"
    assert VARIANTS[-1].id == "329639f6407315e7"


@pytest.mark.parametrize("member", [BASE, *VARIANTS], ids=lambda member: member.id)
def test_definition_round_trip_through_text(member: Member) -> None:
    again = Member.from_definition(json.loads(json.dumps(member.definition())), member.config_kind)
    assert again == member
    assert again.id == member.id


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {**BASE.definition(), "seeds": {"init": 1}},
        {**BASE.definition(), "hyperparameters": {**BASE.definition()["hyperparameters"], "colour": 1}},
        {**BASE.definition(), "protocol": {**BASE.definition()["protocol"], "schedule": {"kind": "warm"}}},
        {**BASE.definition(), "protocol": None},
    ],
)
def test_a_broken_definition_is_refused_in_one_line(broken: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="not the definition of a member") as caught:
        Member.from_definition(broken, "grid")
    assert "\n" not in str(caught.value)


def test_a_parent_is_part_of_the_id_and_takes_its_child_along_in_the_split() -> None:
    for seed in range(20):
        parent = change(seeds=Seeds.all(seed), config_kind="seed")
        child = change(parent=Parent(parent.id, 50, parent.group), config_kind="finetune", learning_rate=1e-2)
        grandchild = change(parent=Parent(child.id, 3, child.group), config_kind="finetune", dropout=0.5)
        assert child.split == grandchild.split == parent.split
        assert child.group == grandchild.group == parent.group
    others = [change(child, parent=Parent(*start)) for start in ((parent.id, 49, ""), (BASE.id, 50, ""))]
    assert len({change(child, parent=None).id, child.id, *(one.id for one in others)}) == 4
    again = Member.from_definition(json.loads(json.dumps(child.definition())), "finetune", child.group)
    assert again == child
    with pytest.raises(FormatError, match="not the definition of a member"):
        Member.from_definition({**child.definition(), "parent": {"epoch": 3}}, "finetune")


def test_models_of_one_configuration_share_a_split() -> None:
    for kind, shared in (("grid", True), ("search", True), ("seed", False)):
        members = [change(seeds=Seeds.all(seed), config_kind=kind) for seed in range(200)]
        assert len({member.group for member in members}) == (1 if shared else 200)
        assert (len({member.split for member in members}) == 1) == shared
    assert change(learning_rate=1e-3).group != BASE.group


def test_the_split_is_70_15_15() -> None:
    splits = [change(seeds=Seeds.all(seed), config_kind="seed").split for seed in range(4000)]
    for split, share in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
        assert splits.count(split) / len(splits) == pytest.approx(share, abs=0.02)


def test_cohorts_share_what_can_only_be_trained_together() -> None:
    members = [BASE, *VARIANTS, change(seeds=Seeds.all(77))]
    grouped = cohorts(members)
    assert sorted(m.id for cohort in grouped for m in cohort.members) == sorted(m.id for m in members)
    first = grouped[0]
    assert first.members[0] == BASE
    # Init, learning rate, weight decay, dropout and the three seeds vary within a cohort; the rest makes a new one.
    assert len(first) == 9
    assert len(grouped) == 1 + len(VARIANTS) - 7
    assert [member.hyperparameters.dropout for member in first.members] == [0] * 8 + [0.5]
    assert (first.architecture, first.activation, first.optimizer) == ("cnn-s", "tanh", "adam")
    assert first.select([2, 0]).members == (first.members[2], first.members[0])


def test_a_mixed_cohort_is_impossible() -> None:
    with pytest.raises(ValueError, match="share architecture, activation"):
        Cohort((BASE, change(activation="relu")))
    with pytest.raises(ValueError, match="share architecture, activation"):
        Cohort(())


def test_what_came_later_is_in_the_definition_only_where_it_is_used() -> None:
    assert set(BASE.definition()["protocol"]) == {"epochs", "batch_size", "schedule", "momentum", "checkpoint_epochs"}
    member = change(augmentation=Augmentation(crop=4, flip=True), precision="bfloat16")
    assert member.definition()["protocol"]["augmentation"] == {"crop": 4, "flip": True}
    for one in (BASE, member):
        assert Member.from_definition(json.loads(json.dumps(one.definition())), "grid") == one
    broken = member.definition()
    broken["protocol"]["augmentation"]["crop"] = -1
    with pytest.raises(FormatError, match="not the definition of a member"):
        Member.from_definition(broken, "grid")
