"""What methods of analysis may find, made up: every kind of figure, with what is awkward about each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from weightzoo.analysis.results import Analysed, Figure, LeftOut, Result, Score


def gallery() -> Analysed:
    """Two methods with scores and figures, one that could not run."""
    rng = np.random.default_rng(0)
    features, targets = (
        ("W", "s(W)", "equivariant network"),
        ("test_accuracy", "learning rate, from weights alone", "init"),
    )
    bars = pd.DataFrame(
        [(t, f, rng.uniform(-0.1, 1), 0.02, 0.03) for t in targets for f in features],
        columns=["target", "features", "R2", "down", "up"],
    )
    bars["low"], bars["high"] = bars["R2"] - bars["down"], bars["R2"] + bars["up"]
    epochs = np.arange(0, 51, 5)
    lines = pd.DataFrame(
        {
            "epoch": np.tile(epochs, 3),
            "method": np.repeat(["last value", "power law", "from weights <b>&amp;"], len(epochs)),
            "tau": np.concatenate([1 - np.exp(-epochs / scale) for scale in (5.0, 10.0, 20.0)]),
        }
    )
    lines["low"], lines["high"] = lines["tau"] - 0.05, lines["tau"] + 0.05
    lines.loc[4, "tau"] = np.nan
    points = pd.DataFrame(rng.normal(size=(1000, 3)), columns=["true", "predicted", "epoch"])
    points["activation"] = np.where(points["true"] > 0, "tanh", "relu")
    points["size"] = np.exp(3 * points["true"])
    names = [f"model {n}" for n in range(7)]
    matrix = pd.DataFrame(
        [(a, b, rng.uniform(-1, 1)) for a in names for b in names], columns=["first", "second", "kappa"]
    )
    wide = pd.DataFrame([(a, b, a * b) for a in range(40) for b in range(40)], columns=["row", "column", "value"])
    spread = Result(
        "spread",
        "A method with every figure",
        "It found 3 things.",
        (
            Score("test accuracy", "R2", 0.9712, 0.95, 0.98, "s(W)", "ridge", 100, 0.815),
            Score("test accuracy", "R2", -0.02, features="W", estimator="ridge on shuffled targets"),
            Score("<i>odd</i>", "ratio", float("nan")),
        ),
        {"bars": bars, "lines": lines, "points": points, "matrix": matrix, "wide": wide},
        (
            Figure("bars", "bars", "Prediction", "By target and features.", "target", "R2", "features", "low", "high"),
            Figure("bars", "lines", "Bars of a few", "One colour for all.", "method", "tau"),
            Figure("lines", "lines", "Curves", "With bands, over the epochs.", "epoch", "tau", "method", "low", "high"),
            Figure("lines", "lines", "Over names", "No numbers.", "method", "tau", "epoch"),
            Figure("points", "points", "Points by kind", "Many.", "true", "predicted", "activation"),
            Figure("points", "points", "Points by number", "Logarithmic.", "size", "predicted", "epoch", log_x=True),
            Figure("matrix", "matrix", "Numbered cells", "Seven by seven.", "first", "second", "kappa"),
            Figure("matrix", "wide", "Many cells", "Forty by forty.", "column", "row", "value"),
        ),
        ("Nobody et al. 2020, On nothing", "Somebody 2021, eq. 3"),
    )
    plain = Result("other", "A method without figures", "Nothing to draw.", (Score("models", "count", 12.0),))
    return Analysed((spread, plain), (LeftOut("twins", "needs sparse twins"),))
