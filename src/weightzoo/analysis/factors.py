"""What the generating factors do: which of them vary, and how much of a metric's spread each accounts for."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from weightzoo.analysis.performance import finished, quantiles
from weightzoo.members import FACTORS, STATUSES

MOST_LEVELS = 8  # a numeric factor with more distinct values than this was drawn from a range, and is binned
BINS = 4
UNKNOWN = "unknown"


def varied_factors(models: pd.DataFrame) -> tuple[str, ...]:
    """The generating factors that take more than one value among the models."""
    return tuple(factor for factor in FACTORS if len(pd.unique(np.asarray(models[factor], object))) > 1)


def levels(models: pd.DataFrame, factor: str) -> pd.Categorical:
    """The factor's value of each model as an ordered category; numbers ascending, names in order of appearance.

    A numeric factor with more than `MOST_LEVELS` values (a search over a range) is cut at its quartiles. A value that
    is not known, of an imported model, is a level of its own, the last.
    """
    column = models[factor]
    unknown = np.asarray(column.isna())
    if unknown.any():
        known = levels(models.iloc[np.flatnonzero(~unknown)], factor)
        codes = np.full(len(models), len(known.categories))
        codes[~unknown] = known.codes
        return pd.Categorical.from_codes(codes, [*known.categories, UNKNOWN], ordered=True)
    if not pd.api.types.is_numeric_dtype(column):
        names = [str(name) for name in column.unique()]
        return pd.Categorical([str(name) for name in column], categories=names, ordered=True)
    values = column.to_numpy(np.float64)
    distinct = np.unique(values)
    if len(distinct) <= MOST_LEVELS:
        labels = [number(value) for value in distinct]
        return pd.Categorical.from_codes(np.searchsorted(distinct, values), labels, ordered=True)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)))
    codes = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    labels = [f"{number(low)} to {number(high)}" for low, high in itertools.pairwise(edges)]
    return pd.Categorical.from_codes(codes, labels, ordered=True)


def factor_effects(models: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Final `metric` by value of each varied factor, averaged over all else: a row a factor and level.

    Columns: factor, level, models, finished, diverged, pruned (counts), and over the finished models mean, q05, q25,
    median, q75, q95.
    """
    done = finished(models)
    rows: list[dict[str, object]] = []
    for factor in varied_factors(models):
        of_model = levels(models, factor)
        for code, label in enumerate(of_model.categories):
            here = np.asarray(of_model.codes) == code
            values = models.loc[here & done, metric].to_numpy(np.float64)
            statistics = quantiles(np.where(np.isfinite(values), values, np.nan)[:, None]).iloc[0].to_dict()
            status = models.loc[here, "status"]
            counts = {name: int((status == name).sum()) for name in STATUSES}
            rows.append({"factor": factor, "level": label, **statistics, "models": int(here.sum()), **counts})
    columns = ["factor", "level", "models", *STATUSES]
    columns += ["mean", "q05", "q25", "median", "q75", "q95"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def variance_shares(models: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    r"""Share of the variance of final `metric`, over finished models, that goes with each factor.

    Columns: kind, source, share. Kinds:

    - `main`: a factor alone, eta squared = SS_between / SS_total with the models grouped by its levels;
    - `pair`: what two factors add together beyond each alone, eta^2(A and B) - eta^2(A) - eta^2(B);
    - `higher`: what all factors together add beyond the main and pair shares;
    - `seed`: what is left between models of equal hyperparameters. Only where some have company; in a search over
      ranges, where factors are binned, the spread within bins is in it too.

    In a full grid with every model finished this is the functional ANOVA decomposition, all shares are at least 0 and
    they sum to 1. Models missing (diverged, pruned) leave it approximate, and a share may come out slightly negative.
    Empty if fewer than two models finished, no factor varies, or the metric does not.

    References: Fisher 1925, Statistical Methods for Research Workers; Hutter, Hoos, Leyton-Brown 2014, "An efficient
    approach for assessing hyperparameter importance".
    """
    measured = np.isfinite(np.asarray(models[metric], np.float64))
    done = models.iloc[np.flatnonzero(finished(models) & measured)]
    values = np.asarray(done[metric], np.float64)
    factors = varied_factors(done)
    empty = pd.DataFrame({"kind": [], "source": [], "share": []}).astype({"share": float})
    if len(values) < 2 or not factors or np.ptp(values) == 0:
        return empty
    codes = {factor: np.asarray(levels(done, factor).codes, np.int64) for factor in factors}
    main = {factor: _eta_squared(values, [codes[factor]]) for factor in factors}
    pairs = {
        (a, b): _eta_squared(values, [codes[a], codes[b]]) - main[a] - main[b]
        for a, b in itertools.combinations(factors, 2)
    }
    together = _eta_squared(values, list(codes.values()))
    rows = [("main", factor, share) for factor, share in main.items()]
    rows += [("pair", f"{a} x {b}", share) for (a, b), share in pairs.items()]
    if len(factors) > 2:
        rows.append(("higher", "three or more factors", together - sum(main.values()) - sum(pairs.values())))
    if len(_cells(list(codes.values()))[1]) < len(values):
        rows.append(("seed", "seed", 1 - together))
    return pd.DataFrame(rows, columns=pd.Index(["kind", "source", "share"]))


def number(value: float) -> str:
    """A factor's number as people write it: `0`, `0.5`, `1e-3`."""
    if value == 0 or 1e-2 <= abs(value) < 1e4:
        return f"{float(f'{value:.3g}'):g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def _eta_squared(values: np.ndarray, codes: list[np.ndarray]) -> float:
    """SS_between / SS_total of `values [N]`, grouped by the combination of the codes."""
    cell, counts = _cells(codes)
    centred = values - values.mean()
    means = np.bincount(cell, centred) / counts
    return float((counts * means**2).sum() / (centred**2).sum())


def _cells(codes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Number of the combination that each model has, `[N]`, and how many models have each combination."""
    _, cell, counts = np.unique(np.stack(codes), axis=1, return_inverse=True, return_counts=True)
    return cell.reshape(-1), counts
