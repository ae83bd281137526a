"""Train one member again, alone, and hold it against its record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from weightzoo.architectures import architecture
from weightzoo.checkpoints import ranges, read_state
from weightzoo.connection import TAG
from weightzoo.console import Report
from weightzoo.datasets import ImageData
from weightzoo.execution.parents import parent_state
from weightzoo.execution.retraining import recorded_member
from weightzoo.execution.retraining import retrain as train_again
from weightzoo.members import Cohort
from weightzoo.tracking import RunStore
from weightzoo.training import choose_engine
from weightzoo.workspace import Workspace


@dataclass(frozen=True)
class Comparison:
    """How the weights of a member that was trained again compare with its record, over its kept epochs."""

    member: str
    recorded_engine: str
    engine: str
    epochs: tuple[int, ...]  # those that were compared
    differing: tuple[int, ...]  # those whose weights are not the same bytes
    largest: float  # difference of two weights

    @property
    def equal(self) -> bool:
        """Whether every kept epoch came out bit for bit."""
        return not self.differing

    def __str__(self) -> str:
        engines = f"engine {self.engine}" + (
            "" if self.engine == self.recorded_engine else f", recorded with {self.recorded_engine}"
        )
        if self.equal:
            return f"member {self.member} ({engines}): weights of epochs {ranges(self.epochs)} are equal, bit for bit"
        return (
            f"member {self.member} ({engines}): weights of epochs {ranges(self.differing)} differ, "
            f"at most by {self.largest:.2g}"
        )


def retrain(
    run: str, workspace: Workspace, *, engine: str | None = None, on_progress: Report | None = None
) -> Comparison:
    """Train the member of a run again, from its record alone, and compare the weights of every kept epoch.

    `engine` is by default the one of the record, the only one that gives the same bits.

    Raises:
        NotFoundError: there is no such run.
        MissingError: the data set of its zoo has not been prepared, or its checkpoints or its parent's are gone.
        SpecError: the data set is not the one that it was trained on.
        EngineError: the engine can't train it.
    """
    store = RunStore()
    member, found = recorded_member(store, run), store.find(run)
    tags = found.data.tags
    recorded_engine = tags[f"{TAG}engine"]
    data = ImageData.load(workspace.data(tags[f"{TAG}zoo"]))
    built = architecture(member.architecture, data.image_shape, data.classes)
    chosen = choose_engine(engine or recorded_engine, built, Cohort((member,)), "cpu")
    last = int(tags.get(f"{TAG}last_epoch", member.protocol.epochs))
    kept = [epoch for epoch in member.protocol.checkpoint_epochs if epoch <= last]
    differing: list[int] = []
    largest = 0.0
    with store.artifacts(found).folder() as folder:
        for result in train_again(member, data, chosen, parent_state(store, member)):
            if on_progress is not None:
                on_progress(result.epoch, last)
            if result.epoch in kept:
                recorded = built.layout.flatten(read_state(folder, result.epoch))
                weights = result.state.weights[0]
                if weights.tobytes() != recorded.tobytes():
                    differing.append(result.epoch)
                    largest = max(largest, float(np.max(np.abs(weights - recorded))))
            if result.epoch == last:
                break
    return Comparison(member.id, recorded_engine, chosen.name, tuple(kept), tuple(differing), largest)
