"""Members: the single models of a zoo, each defined completely by one small record, and how they group for training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from weightzoo.errors import FormatError
from weightzoo.spec import Augmentation, Precision, Schedule, Sparsification

Split = Literal["train", "val", "test"]
ConfigKind = Literal["seed", "grid", "search", "evolution", "finetune", "sparsify"]
ID_LENGTH = 16
TRAINING = "training"  # the status of a run whose training has not ended; afterwards it is one of STATUSES
STATUSES = ("finished", "diverged", "pruned")
PARTIAL = "partial"  # of an imported model: its record ends before its training should have
ENDED = (*STATUSES, PARTIAL)
FACTORS = ("init", "activation", "optimizer", "learning_rate", "weight_decay", "dropout")


@dataclass(frozen=True)
class Hyperparameters:
    """One value of each generating factor."""

    init: str
    activation: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    dropout: float


@dataclass(frozen=True)
class Seeds:
    """The three independent sources of randomness of a member."""

    init: int
    order: int
    dropout: int

    @classmethod
    def all(cls, seed: int) -> Seeds:
        """The same number for all three; the streams drawn from them are independent nevertheless."""
        return cls(seed, seed, seed)


@dataclass(frozen=True)
class Protocol:
    """What all members of a zoo share: length of training, batch, schedule, momentum of SGD, kept epochs, and so on.

    `precision` is that of the forward and backward pass; weights and their updates are always float32.
    """

    epochs: int
    batch_size: int
    schedule: Schedule
    momentum: float
    checkpoint_epochs: tuple[int, ...]
    augmentation: Augmentation | None = None
    precision: Precision = "float32"

    def definition(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        plain = dict(vars(self))  # asdict would copy the kept epochs one by one, for each of thousands
        plain |= {"schedule": self.schedule.model_dump(), "checkpoint_epochs": list(self.checkpoint_epochs)}
        # What came later is there only where it is used: the ids of older members stay.
        augmentation = plain.pop("augmentation")
        if augmentation is not None:
            plain["augmentation"] = augmentation.model_dump(exclude_defaults=True)
        if self.precision == "float32":
            del plain["precision"]
        return plain

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Protocol:
        """The protocol that `definition()` describes.

        Raises:
            KeyError, TypeError, ValidationError: it is not what that gives.
        """
        return cls(
            epochs=definition["epochs"],
            batch_size=definition["batch_size"],
            schedule=TypeAdapter[Schedule](Schedule).validate_python(definition["schedule"]),
            momentum=definition["momentum"],
            checkpoint_epochs=tuple(definition["checkpoint_epochs"]),
            augmentation=TypeAdapter[Augmentation | None](Augmentation | None).validate_python(
                definition.get("augmentation")
            ),
            precision=TypeAdapter[Precision](Precision).validate_python(definition.get("precision", "float32")),
        )


@dataclass(frozen=True)
class Parent:
    """Where a member's weights start: those of another member behind an epoch.

    `group` is the parent's configuration group, which its descendants share, so that they go with it in the split.
    """

    member: str  # id
    epoch: int
    group: str


@dataclass(frozen=True)
class Member:
    """One model to be trained: everything that decides its weights, on a given engine and machine type, bit for bit."""

    dataset: str
    dataset_hash: str
    architecture: str
    hyperparameters: Hyperparameters
    seeds: Seeds
    protocol: Protocol
    config_kind: ConfigKind
    parent: Parent | None = None
    sparsification: Sparsification | None = None

    def definition(self) -> dict[str, Any]:
        """The record as plain JSON values. What a member does without is left out of it, and so of its id."""
        lineage = {"member": self.parent.member, "epoch": self.parent.epoch} if self.parent else None
        sparsification = self.sparsification.model_dump(mode="json") if self.sparsification else None
        used = {"parent": lineage, "sparsification": sparsification}
        return {
            "dataset": self.dataset,
            "dataset_hash": self.dataset_hash,
            "architecture": self.architecture,
            "hyperparameters": dataclasses.asdict(self.hyperparameters),
            "seeds": dataclasses.asdict(self.seeds),
            "protocol": self.protocol.definition(),
            **{name: value for name, value in used.items() if value is not None},
        }

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any], config_kind: str, group: str = "") -> Member:
        """The member that `definition()` describes; `config_kind` only decides its configuration group.

        A member with a parent has the `group` of that.

        Raises:
            FormatError: it is not what `definition()` gives.
        """
        try:
            given = definition.get("sparsification")
            return cls(
                dataset=definition["dataset"],
                dataset_hash=definition["dataset_hash"],
                architecture=definition["architecture"],
                hyperparameters=Hyperparameters(**definition["hyperparameters"]),
                seeds=Seeds(**definition["seeds"]),
                protocol=Protocol.from_definition(definition["protocol"]),
                config_kind=TypeAdapter[ConfigKind](ConfigKind).validate_python(config_kind),
                parent=Parent(**definition["parent"], group=group) if "parent" in definition else None,
                sparsification=TypeAdapter[Sparsification](Sparsification).validate_python(given) if given else None,
            )
        except (KeyError, TypeError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise FormatError(f"not the definition of a member ({reason}); another version made it") from None

    @cached_property
    def id(self) -> str:
        """A hash of the definition: the same model has the same id everywhere."""
        return record_hash(self.definition())

    @cached_property
    def group(self) -> str:
        """The configuration group that the split is drawn by: the hyperparameters, and in a seed zoo the seeds too.

        A member with a parent belongs to the group of that, whatever its own hyperparameters are.
        """
        if self.parent is not None:
            return self.parent.group
        seeds = dataclasses.asdict(self.seeds) if self.config_kind == "seed" else None
        return configuration_group(dataclasses.asdict(self.hyperparameters), seeds)

    @property
    def split(self) -> Split:
        """70/15/15 by the hash of the configuration group, so that no order or file system has a say in it."""
        return split_of(self.group)


@dataclass(frozen=True)
class Cohort:
    """Members that can be trained together: same architecture, activation, optimiser kind and protocol.

    Initialisation, learning rate, weight decay, dropout rate and seeds differ from member to member.
    """

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        if len({cohort_key(member) for member in self.members}) != 1:
            raise ValueError("the members of a cohort share architecture, activation, optimiser kind and protocol")

    def __len__(self) -> int:
        return len(self.members)

    @property
    def architecture(self) -> str:
        """The architecture's name."""
        return self.members[0].architecture

    @property
    def activation(self) -> str:
        """The activation of all members."""
        return self.members[0].hyperparameters.activation

    @property
    def optimizer(self) -> str:
        """The optimiser kind of all members."""
        return self.members[0].hyperparameters.optimizer

    @property
    def protocol(self) -> Protocol:
        """The training protocol of all members."""
        return self.members[0].protocol

    @property
    def sparsification(self) -> Sparsification | None:
        """How all members are made sparse, if they are."""
        return self.members[0].sparsification

    def select(self, rows: Sequence[int]) -> Cohort:
        """The cohort of some of the members."""
        return Cohort(tuple(self.members[row] for row in rows))


def cohort_key(member: Member) -> tuple[Any, ...]:
    """What must agree for two members to share a cohort."""
    chosen = member.hyperparameters
    kind = (member.dataset_hash, member.architecture, chosen.activation, chosen.optimizer)
    return (*kind, member.protocol, member.sparsification)


def cohorts(members: Iterable[Member]) -> tuple[Cohort, ...]:
    """Members grouped into cohorts, in the order of first appearance; within one, members without dropout first.

    Sorting by dropout lets an engine that trains a fixed number of members at a time skip the masks for most groups; it
    changes no result.
    """
    grouped: dict[tuple[Any, ...], list[Member]] = {}
    for member in members:
        grouped.setdefault(cohort_key(member), []).append(member)
    ordered = (sorted(group, key=lambda one: one.hyperparameters.dropout > 0) for group in grouped.values())
    return tuple(Cohort(tuple(group)) for group in ordered)


def configuration_group(hyperparameters: Mapping[str, Any], seeds: Mapping[str, Any] | None = None) -> str:
    """The name of the group of models that share these hyperparameters, and these seeds where those matter."""
    return record_hash({"hyperparameters": hyperparameters} | ({} if seeds is None else {"seeds": seeds}))


def split_of(group: str) -> Split:
    """The split that a configuration group falls into."""
    position = int(group[:8], 16) / 16**8
    return "train" if position < 0.70 else "val" if position < 0.85 else "test"


def record_hash(record: Mapping[str, Any]) -> str:
    """A hash of plain JSON values, `ID_LENGTH` hexadecimal digits."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=ID_LENGTH // 2).hexdigest()
