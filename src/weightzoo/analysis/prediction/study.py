"""The protocol of a prediction: which states are fitted to, chosen by and tested on, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from weightzoo.analysis.features import batches, feature_matrix, states_of
from weightzoo.analysis.prediction.leaks import check_leaks, without_leaks
from weightzoo.analysis.prediction.targets import TARGETS, Known, Target, values_of, varies
from weightzoo.analysis.weights import evenly
from weightzoo.datasets.images import ImageData
from weightzoo.errors import NotFoundError
from weightzoo.zoo import Zoo

MOST_STATES = 12_000  # that are fitted to; an even sample of them if there are more


@dataclass(frozen=True)
class Part:
    """States of a view of a zoo, `model` and `epoch`."""

    zoo: Zoo
    states: pd.DataFrame

    @classmethod
    def of(cls, zoo: Zoo, epochs: Sequence[int], most: int = MOST_STATES) -> Part:
        """The states with finite weights at the epochs, an even sample if they are more than `most`."""
        states = states_of(zoo, epochs)
        states = states.iloc[evenly(len(states), most)]
        pairs = [np.stack([batch.models, batch.epochs]) for batch in batches(zoo, states)]
        found = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), np.int64)
        return cls(zoo, pd.DataFrame({"model": found[0], "epoch": found[1]}))

    def __len__(self) -> int:
        return len(self.states)

    @property
    def models(self) -> np.ndarray:
        """The number of each state's model in the view, int64 `[N]`."""
        return self.states["model"].to_numpy(np.int64)

    @cached_property
    def weights(self) -> np.ndarray:
        """Float32 `[N, P]`."""
        return np.concatenate([batch.weights for batch in batches(self.zoo, self.states)])

    @property
    def class_accuracies(self) -> np.ndarray:
        """Test accuracy on each class, float64 `[N, classes]`; NaN where not known."""
        measured = self.zoo.epochs.set_index(["model", "epoch"])["test_class_accuracy"]
        own = measured.reindex(pd.MultiIndex.from_frame(self.states))
        nothing = np.full(self.zoo.architecture.classes, np.nan)
        return np.stack([nothing if row is None or np.ndim(row) == 0 else np.asarray(row, np.float64) for row in own])

    def values(self, target: Target) -> Known:
        """The target at each state."""
        return values_of(self.zoo, target, self.states)


class Splits(NamedTuple):
    """An array for each part of a study, a row a state."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    def rows(self, masks: Splits) -> Splits:
        """The rows where the masks, bool `[N]`, hold; itself if they all do."""
        if all(mask.all() for mask in masks):
            return self
        return Splits(*(values[mask] for values, mask in zip(self, masks, strict=True)))


class Study:
    """Train, val and test: states of three sets of models, none of which has kin in another.

    What is fitted sees train alone, what is chosen is chosen on val, all scores are of test.
    """

    def __init__(self, train: Part, val: Part, test: Part, left_out: int, images: ImageData | None) -> None:
        self.train, self.val, self.test = train, val, test
        self.left_out = left_out  # models of train and val that have kin in val or test
        self.images = images
        self._features: dict[str, Splits] = {}

    @classmethod
    def of(
        cls,
        fitted: Zoo,
        tested: Zoo | None = None,
        *,
        epochs: Sequence[int],
        test_epochs: Sequence[int] | None = None,
        images: ImageData | None = None,
    ) -> Study:
        """Fit to the train split of `fitted`, choose by its val split; test on its test split, or on another zoo.

        Models of train with kin in val or test are left out, as are those of val with kin in test. Of another zoo, all
        models are tested on.

        Raises:
            NotFoundError: a split has no states, or the other zoo's models are of another architecture.
            LeakError: a tested model has kin among the others, in spite of that.
        """
        if tested is not None and tested.architecture != fitted.architecture:
            raise NotFoundError(f"{tested.name} has models of another architecture than {fitted.name}")
        test = fitted.split("test") if tested is None else tested
        val, val_left = without_leaks(fitted.split("val"), test)
        train, train_left = without_leaks(fitted.split("train"), val, test)
        parts: list[Part] = []
        for name, view, own in (("train", train, epochs), ("val", val, epochs), ("test", test, test_epochs or epochs)):
            parts.append(Part.of(view, own))
            if not len(parts[-1]):
                raise NotFoundError(f"needs models in train, val and test, {view.name} has no {name} states left")
        check_leaks(train, test)
        check_leaks(val, test)
        return cls(parts[0], parts[1], parts[2], train_left + val_left, images)

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """Train, val, test."""
        return self.train, self.val, self.test

    def features(self, names: Sequence[str]) -> Splits:
        """Float32 `[N, F]` of each part, every kind computed once."""
        for name in names:
            if name not in self._features:
                self._features[name] = Splits(*(self._computed(part, name) for part in self.parts))
        kinds = [self._features[name] for name in names]
        return (
            kinds[0] if len(kinds) == 1 else Splits(*(np.concatenate(own, axis=1) for own in zip(*kinds, strict=True)))
        )

    def _computed(self, part: Part, name: str) -> np.ndarray:
        if name == "raw":
            return part.weights
        return feature_matrix(part.zoo, [name], states=part.states, images=self.images).to_numpy()

    def known(self, target: Target) -> tuple[Known, Known, Known]:
        """The target at the states of train, val and test."""
        train, val, test = (part.values(target) for part in self.parts)
        return train, val, test

    def targets(self, wanted: Sequence[Target] = TARGETS) -> tuple[Target, ...]:
        """Those that can be learned from train, chosen by on val and tested on test."""
        return tuple(target for target in wanted if self._can_be_told(target))

    def _can_be_told(self, target: Target) -> bool:
        known = self.known(target)
        same = known[0].labels == known[2].labels
        return same and all(varies(own, part.models) for own, part in zip(known, self.parts, strict=True))


def spread_epochs(zoo: Zoo, count: int) -> tuple[int, ...]:
    """`count` of the kept epochs, evenly spread, the first and the last included."""
    kept = np.asarray(zoo.checkpoint_epochs)
    return tuple(int(epoch) for epoch in kept[evenly(len(kept), count)])
