"""ResNet-18 against torchvision's own, with the first convolution replaced and the max-pool taken out."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

from weightzoo.architectures import architecture
from weightzoo.architectures.module import build_module


def torchvision_resnet_18(classes: int) -> nn.Module:
    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


@pytest.mark.parametrize(
    ("classes", "side", "parameters"), [(10, 32, 11_173_962), (100, 32, 11_220_132), (200, 64, 11_271_432)]
)
def test_parameter_counts_are_the_published_ones(classes: int, side: int, parameters: int) -> None:
    layout = architecture("resnet-18", (3, side, side), classes).layout
    assert layout.trained == parameters
    assert layout.size == parameters + 9_600
    assert layout.names == tuple(n for n in torchvision_resnet_18(classes).state_dict() if "num_batches" not in n)


@pytest.mark.parametrize(("classes", "side"), [(10, 32), (200, 64)])
def test_it_computes_what_torchvision_s_does(classes: int, side: int) -> None:
    torch.manual_seed(side)
    theirs = torchvision_resnet_18(classes).double()
    ours = build_module(architecture("resnet-18", (3, side, side), classes), "relu").double()
    ours.load_state_dict(theirs.state_dict())
    inputs, labels = torch.randn(2, 3, side, side, dtype=torch.float64), torch.tensor([1, 7])
    for network in (theirs, ours):
        cross_entropy(network.train()(inputs), labels).backward()
    for name, parameter in theirs.named_parameters():
        gradient = ours.get_parameter(name).grad
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12, msg=name)
    for name, tensor in ours.state_dict().items():  # the running statistics have moved alike
        torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=1e-12, atol=0, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(inputs), theirs.eval()(inputs), rtol=1e-9, atol=1e-12)


def test_states_go_both_ways() -> None:
    ours = build_module(architecture("resnet-18", (3, 32, 32), 10), "relu")
    theirs = torchvision_resnet_18(10)
    theirs.load_state_dict(ours.state_dict())
    theirs.load_state_dict(dict(ours.state_dict()))
    ours.load_state_dict({name: tensor for name, tensor in theirs.state_dict().items() if "num_batches" not in name})
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"bn1.running_var\""):
        ours.load_state_dict({name: tensor for name, tensor in ours.state_dict().items() if name != "bn1.running_var"})


def test_it_is_a_tree_of_modules_like_torchvision_s() -> None:
    ours, theirs = build_module(architecture("resnet-18", (3, 32, 32), 10), "relu"), torchvision_resnet_18(10)
    ours.load_state_dict(theirs.state_dict())
    hidden = torch.randn(2, 64, 8, 8)
    with torch.no_grad():  # the activations between blocks are no part of ours
        torch.testing.assert_close(ours.eval().layer1[0](hidden).relu(), theirs.eval().layer1[0](hidden))
        ours.fc = nn.Linear(512, 3)  # the head of a fine-tuned model
        assert ours(torch.randn(2, 3, 32, 32)).shape == (2, 3)
        assert ours[-1] is ours.fc
        assert len(ours) == len(list(ours)) == 22
    torch.optim.swa_utils.update_bn([torch.randn(4, 3, 8, 8)], ours)  # PyTorch's tools know its normalisation
    assert ours.bn1.num_batches_tracked == 1


def test_any_image_size_will_do_but_its_channels_are_those_of_the_data() -> None:
    built = architecture("resnet-18", (1, 28, 28), 10)
    assert built.layout.trained == 11_173_962 - 2 * 64 * 9
    assert build_module(built, "relu").eval()(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
