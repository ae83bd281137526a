"""A zoo in small, to see in about a minute that it can be built: the zoo `NAME-rehearsal` of any zoo `NAME`.

It is a zoo of its own, with folders, runs and a data set of its own, and goes through the same steps as any other.
"""

from __future__ import annotations

from typing import Any

from weightzoo.datasets.description import Description, describe
from weightzoo.spec import (
    DatasetSpec,
    Every,
    EvolutionConfiguration,
    ListedSeeds,
    Params,
    Scale,
    SearchConfiguration,
    Training,
    ZooSpec,
)

SUFFIX = "-rehearsal"


def sections(name: str, params: Params) -> tuple[ZooSpec, DatasetSpec]:
    """The sections of a zoo and of its data set; of `NAME-rehearsal`, those of `NAME` scaled down.

    Raises:
        SpecError: there is no such zoo; the message names the nearest.
    """
    scale = scale_of(name, params)
    zoo = params.zoo(name if scale is None else name.removesuffix(SUFFIX))
    dataset = params.datasets[zoo.dataset]
    if scale is None:
        return zoo, dataset
    return rehearsed(zoo, scale), _fewer_images(dataset, describe(zoo.dataset, dataset), scale.images)


def scale_of(name: str, params: Params) -> Scale | None:
    """How small the zoo `name` is, if that is the name of a rehearsal; None if it is a zoo of `params.yaml`.

    Raises:
        SpecError: there is no such zoo; the message names the nearest.
    """
    if name in params.zoos or not name.endswith(SUFFIX):
        return None
    return params.rehearsal.get(params.zoo(name.removesuffix(SUFFIX)).architecture, Scale())


def origin(name: str, params: Params) -> dict[str, Any] | None:
    """What a packed zoo says of its being a rehearsal: of which zoo, and how small; None if it is none.

    Raises:
        SpecError: there is no such zoo; the message names the nearest.
    """
    scale = scale_of(name, params)
    return None if scale is None else {"of": name.removesuffix(SUFFIX), **scale.model_dump()}


def rehearsed(zoo: ZooSpec, scale: Scale) -> ZooSpec:
    """A zoo with fewer members and epochs, on a data set with the name of its own and `-rehearsal` behind it."""
    section = zoo.model_dump(exclude={"collections"})
    section["dataset"] = zoo.dataset + SUFFIX
    section["configuration"] |= _fewer_members(zoo, scale)
    section["training"] |= _fewer_epochs(zoo.training, scale.epochs)
    return ZooSpec.model_validate(section)


def _fewer_members(zoo: ZooSpec, scale: Scale) -> dict[str, Any]:
    """A seed zoo keeps its first seeds, a grid members from all over it, a search draws fewer in smaller batches."""
    configuration, members = zoo.configuration, min(scale.members, zoo.models)
    if configuration.kind == "grid":
        return {"members": members}
    if isinstance(configuration, SearchConfiguration):
        smaller = {"models": members, "batch": max(1, configuration.batch * members // configuration.models)}
        pruner = configuration.pruner
        if pruner is None or members == 1 or scale.epochs == 1:
            return smaller | {"pruner": None}
        return smaller | {
            "pruner": pruner.model_dump() | {"warmup_epochs": min(pruner.warmup_epochs, scale.epochs - 1)}
        }
    if isinstance(configuration, EvolutionConfiguration):
        models = max(2, min(configuration.models, scale.members // 2))
        return {"models": models, "generations": max(2, min(configuration.generations, scale.members // models))}
    seeds = configuration.seeds
    if isinstance(seeds, ListedSeeds):
        return {"seeds": seeds.model_dump() | {"values": seeds.values[:members]}}
    key = "random" if "random" in type(seeds).model_fields else "count"
    return {"seeds": seeds.model_dump() | {key: members}}


def _fewer_epochs(training: Training, most: int) -> dict[str, Any]:
    epochs, kept = min(most, training.epochs), training.checkpoints
    if isinstance(kept, Every):
        return {"epochs": epochs, "checkpoints": {"every": kept.every, "first": min(kept.first, epochs)}}
    if isinstance(kept, tuple):
        return {"epochs": epochs, "checkpoints": [epoch for epoch in kept if epoch <= epochs] or [epochs]}
    return {"epochs": epochs}


def _fewer_images(dataset: DatasetSpec, data: Description, most: int) -> DatasetSpec:
    """At most so many training images; validation and test images in proportion."""
    share = min(1.0, most / data.counts["train"])
    counts = {split: max(1, round(count * share)) for split, count in data.counts.items()}
    return DatasetSpec.model_validate(dataset.model_dump() | counts)
