"""Step 1: the image data set of a zoo, as tensors with a fixed split."""

from __future__ import annotations

from weightzoo.console import say
from weightzoo.datasets import prepare as prepare_images
from weightzoo.spec import load_params
from weightzoo.workspace import Workspace


def prepare(zoo: str, workspace: Workspace) -> None:
    """Write `data/<zoo>/` from the `datasets` section that the zoo names.

    Raises:
        SpecError: `params.yaml` has no such zoo or describes an impossible data set.
    """
    params = load_params(workspace.params)
    name = params.zoo(zoo).dataset
    data = prepare_images(name, params.datasets[name])
    data.save(workspace.data(zoo))
    counts = ", ".join(f"{len(labels):,} {split}" for split, labels in data.labels.items())
    say(f"prepare   {zoo}: {name}, {counts} images of {'x'.join(map(str, data.image_shape))}")
