"""Whether a predictor could know what it is tested on: the same model, its twin, a copy, its configuration."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from weightzoo.errors import LeakError
from weightzoo.zoo import Zoo


def find_leaks(fitted: Zoo, tested: Zoo) -> pd.DataFrame:
    """Each pair of a model that is fitted to and one that is tested, and how they are kin: `fitted`, `tested`, `kind`.

    A kind is `model` (the same), `twin` (one is the other's parent, or they have one parent), `duplicate` (equal
    weights at their last kept epochs) or `configuration` (the same configuration group). The numbers are those of the
    two views; a pair is listed once, under the first of these that holds.
    """
    keys = (
        ("model", _members(fitted), _members(tested)),
        ("twin", _family(fitted), _family(tested)),
        ("duplicate", _contents(fitted), _contents(tested)),
        ("configuration", _groups(fitted), _groups(tested)),
    )
    tables = [one.merge(other, on="key", suffixes=("", "_")).assign(kind=kind) for kind, one, other in keys]
    found = pd.concat(tables).rename(columns={"model": "fitted", "model_": "tested"})
    again = found.duplicated(["fitted", "tested"])
    return pd.DataFrame(found.loc[~again, ["fitted", "tested", "kind"]]).reset_index(drop=True)


def without_leaks(fitted: Zoo, *tested: Zoo) -> tuple[Zoo, int]:
    """The models of `fitted` that have no kin in any of the others, and how many were left out."""
    kin = np.zeros(len(fitted), bool)
    for other in tested:
        kin[find_leaks(fitted, other)["fitted"].to_numpy(np.int64)] = True
    return (fitted.select(~kin) if kin.any() else fitted), int(kin.sum())


def check_leaks(fitted: Zoo, tested: Zoo) -> None:
    """Make sure that no model is known.

    Raises:
        LeakError: one is.
    """
    found = find_leaks(fitted, tested)
    if len(found):
        first = found.iloc[0]
        one, other = (
            str(zoo.models["member"].iloc[int(first[side])]) for zoo, side in ((fitted, "fitted"), (tested, "tested"))
        )
        raise LeakError(
            f"{len(found)} pairs of a model fitted to and one tested on are kin, first {one} and {other} "
            f"({first['kind']}); leave those models out, or split the zoo by its configuration groups"
        )


def _table(models: list[int], keys: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"model": pd.Series(models, dtype=np.int64), "key": pd.Series(keys, dtype=str)})


def _members(zoo: Zoo) -> pd.DataFrame:
    return _table(list(range(len(zoo))), [*map(str, zoo.models["member"])])


def _groups(zoo: Zoo) -> pd.DataFrame:
    return _table(list(range(len(zoo))), [*map(str, zoo.models["group"])])


def _family(zoo: Zoo) -> pd.DataFrame:
    """A model under its own id, and under its parent's."""
    own = _members(zoo)
    known = zoo.models["parent"].notna().to_numpy(bool)
    return pd.concat([own, _table(np.flatnonzero(known).tolist(), [*map(str, zoo.models["parent"][known])])])


def _contents(zoo: Zoo) -> pd.DataFrame:
    """A model under the hash of its last kept weights, if these are finite."""
    kept = np.asarray(zoo.checkpoint_epochs)
    models: list[int] = []
    keys: list[str] = []
    for number in range(len(zoo)):
        reached = kept[zoo.present[number]]
        if not len(reached):
            continue
        weights = zoo.weights([number], [int(reached[-1])])
        if np.isfinite(weights).all():
            models.append(number)
            keys.append(hashlib.blake2b(weights.tobytes(), digest_size=16).hexdigest())
    return _table(models, keys)
