"""The torch data set over a zoo's states."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from weightzoo.errors import NotFoundError
from weightzoo.zoo import Permute


def test_items_are_the_states_that_were_reached(written, zoo):
    _, _, made = written
    data = zoo.dataset(epochs=[1, 3, 4])
    expected = [
        (model, epoch) for model in range(12) for epoch in (1, 3, 4) if (model, epoch) not in {(1, 3), (1, 4), (2, 4)}
    ]
    assert list(data.states.itertuples(index=False, name=None)) == expected
    for index in (0, 5, -1):
        model, epoch = expected[index]
        np.testing.assert_array_equal(data[index].numpy(), made[model].weights[epoch])
    with pytest.raises(IndexError):
        data[len(data)]
    assert len(list(data)) == len(expected)  # iteration ends


def test_diverged_states_on_request(zoo):
    assert len(zoo.dataset(diverged=True)) == 59
    assert len(zoo.dataset()) == 59 - 3
    assert all(torch.isfinite(zoo.dataset()[index]).all() for index in range(56))


def test_a_metric_is_the_one_of_its_epoch(written, zoo):
    _, _, made = written
    data = zoo.dataset(target="test_accuracy")
    for index in (0, 3, 20, 55):
        model, epoch = data.states.iloc[index]
        _, target = data[index]
        assert target.dtype == torch.float32
        assert target.item() == made[model].metrics["test_accuracy"][epoch]


def test_other_targets(zoo):
    data = zoo.dataset(epochs=[4], target=("epoch", "learning_rate", "activation", "best_val_accuracy"))
    _, (epoch, rate, activation, best) = data[4]
    model = data.states.model[4]
    assert epoch.item() == 4
    assert rate.item() == np.float32(zoo.models.learning_rate[model])
    assert best.item() == zoo.models.best_val_accuracy[model]
    assert activation.dtype == torch.int64
    assert data.classes == {"activation": ("gelu", "relu", "tanh")}
    assert data.classes["activation"][activation] == zoo.models.activation[model]
    with pytest.raises(NotFoundError, match="no target 'accuracy'; there are epoch, member"):
        zoo.dataset(target="accuracy")


def test_class_numbers_agree_between_views(zoo):
    view = zoo.select(zoo.models.activation == "tanh")
    data = view.dataset(target="activation")
    assert {int(target) for _, target in data} == {2}


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (1, "spawn")])
def test_loader(zoo, workers, context):
    data = zoo.select(slice(3, 8)).dataset(epochs=[0, 4], target=("test_loss", "init"))
    loader = DataLoader(data, batch_size=4, num_workers=workers, multiprocessing_context=context)
    batches = list(loader)
    vectors = torch.cat([vector for vector, _ in batches])
    np.testing.assert_array_equal(vectors.numpy(), zoo.weights(slice(3, 8), [0, 4]).reshape(10, -1))
    losses = torch.cat([targets[0] for _, targets in batches])
    assert losses.shape == (10,)


def test_permuted_epochs_differ_and_repeat_with_the_loaders_generator(zoo):
    data = zoo.dataset(epochs=[4], transform=Permute(zoo.symmetries, seed=0))

    def two_epochs():
        loader = DataLoader(data, batch_size=5, num_workers=2, generator=torch.Generator().manual_seed(0))
        return [torch.cat(list(loader)) for _ in range(2)]

    first, second = two_epochs()
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(dim=1).values, second.sort(dim=1).values)
    assert torch.equal(torch.stack(two_epochs()), torch.stack([first, second]))
