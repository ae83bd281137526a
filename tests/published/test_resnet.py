"""ResNet-18 zoos in the published layout: torchvision's own network on both sides."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import nn

from tests.published import experiments
from weightzoo.importing import import_runs
from weightzoo.published import export_ray_tune, open_source, pack
from weightzoo.registry import Registry
from weightzoo.tracking import RunStore
from weightzoo.zoo import Zoo


def network(seed: int, classes: int = 10) -> nn.Module:
    """The published variant: a 3x3 first convolution with stride 1, and no max-pooling."""
    torch.manual_seed(seed)
    made = torchvision.models.resnet18(num_classes=classes)
    made.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    made.maxpool = nn.Identity()
    with torch.no_grad():
        for name, buffer in made.named_buffers():
            if not name.endswith("num_batches_tracked"):
                buffer.uniform_(0.5, 1.5)
    return made.eval()


def test_a_resnet_is_read_and_written_as_published(tmp_path, new_store) -> None:
    config = {
        "model::type": "Resnet18",
        "model::channels_in": 3,
        "model::nlin": "relu",
        "optim::scheduler": "OneCycleLR",
    }
    trial = experiments.write_trial(
        tmp_path / "tune_zoo_cifar10_resnet18_kaiming_uniform",
        1,
        epochs=0,
        config=experiments.params(1, **config, **{"training::epochs_train": 0}),
    )
    published = network(3)
    wrapped = {f"model.{name}": tensor for name, tensor in published.state_dict().items()}
    torch.save(wrapped, trial / "checkpoint_000000" / "checkpoints")
    assert pack(open_source(trial.parent), tmp_path / "packed") == ()
    zoo = Zoo.open(tmp_path / "packed")
    assert zoo.architecture.name == "resnet-18"
    assert zoo.architecture.input_shape == (3, 32, 32)
    assert zoo.layout.trained == 11_173_962
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(zoo.module(0, 0)(images), published(images), rtol=1e-4, atol=1e-4)

    store = RunStore(f"sqlite:///{new_store('store')}/mlflow.db")
    done = import_runs(open_source(trial.parent), "published", store)
    assembled = Registry(store.uri).members(done.members).assemble(tmp_path / "assembled")
    assert assembled.layout == zoo.layout
    np.testing.assert_array_equal(assembled.weights(), zoo.weights())

    export_ray_tune(zoo, tmp_path / "out")
    written = next((tmp_path / "out").glob("NN_*")) / "checkpoint_000000" / "checkpoints"
    fresh = network(4)
    fresh.load_state_dict(torch.load(written, weights_only=True))
    for name, tensor in published.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(fresh.state_dict()[name].numpy(), tensor.numpy())
