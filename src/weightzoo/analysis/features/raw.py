"""The weights themselves."""

from __future__ import annotations

import numpy as np

from weightzoo.analysis.features.states import Batch


def raw(batch: Batch) -> dict[str, np.ndarray]:
    """W: every entry of the weight vector, a column each, named by its parameter and place, as `fc2.bias[3]`."""
    layout = batch.zoo.layout
    spans = ((name, layout.span(name)) for name in layout.names)
    return {
        f"{name}[{at - span.start}]": batch.weights[:, at]
        for name, span in spans
        for at in range(span.start, span.stop)
    }
