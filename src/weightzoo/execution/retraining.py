"""Training one member again from its record alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from weightzoo.architectures import architecture
from weightzoo.connection import TAG
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError, FormatError, MissingError, SpecError
from weightzoo.lineage import inherited
from weightzoo.members import Cohort, Member
from weightzoo.tracking import RunStore
from weightzoo.training.protocol import Engine, EpochResult, TrainState


def recorded_member(store: RunStore, run: str) -> Member:
    """The member that a run (or member) id was trained from.

    Raises:
        NotFoundError: there is no such run.
        FormatError: it is no run of ours, or its definition is not that of its member id.
        TrackingError: the store can't be used.
    """
    tags = store.find(run).data.tags
    try:
        definition, kind = json.loads(tags[f"{TAG}definition"]), tags[f"{TAG}configuration"]
        group = tags[f"{TAG}group"]
    except (KeyError, ValueError, RecursionError):
        raise FormatError(f"run {run} has no definition of a member; it was not made by weightzoo") from None
    if "imported" in definition:
        raise FormatError(f"run {run} was imported: its source does not say all that training it again would need")
    member = Member.from_definition(definition, kind, group)
    if member.id != tags.get(f"{TAG}member"):
        raise FormatError(f"run {run}: its definition is not that of member {tags.get(f'{TAG}member')}")
    return member


def retrain(
    member: Member, data: ImageData, engine: Engine, parent: Mapping[str, np.ndarray] | None = None
) -> Iterator[EpochResult]:
    """Train one member alone, epoch by epoch; nothing is recorded.

    On the engine and kind of machine that it was trained with, the weights are those of its record, bit for bit. A
    member that has a parent starts from the `parent`'s weights (`parent_state`).

    Raises:
        SpecError: the data are not those that the member was trained on.
        MissingError: it has a parent, whose weights were not given.
        EngineError: the engine can't train it.
    """
    if data.content_hash != member.dataset_hash:
        raise SpecError(
            f"member {member.id} was trained on {member.dataset} {member.dataset_hash}, these data are {data.name} "
            f"{data.content_hash}; prepare the data set as it was"
        )
    built = architecture(member.architecture, data.image_shape, data.classes)
    cohort = Cohort((member,))
    reason = engine.supports(built, cohort, "cpu")
    if reason is not None:
        raise EngineError(f"engine {engine.name} can't train member {member.id}: {reason}")
    if member.parent is None:
        return engine.train(built, cohort, data)
    if parent is None:
        raise MissingError(f"member {member.id} starts from member {member.parent.member}; give the weights of that")
    start = TrainState.given(inherited(built, member, parent)[None], cohort.optimizer)
    return engine.train(built, cohort, data, resume=start)
