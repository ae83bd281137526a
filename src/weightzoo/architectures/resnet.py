"""ResNet-18 for small images (He et al. 2015, arXiv 1512.03385), as the model zoos have it.

It is torchvision's, names included, with a 3x3 stride-1 first convolution and without the max-pool behind it.
"""

from __future__ import annotations

from collections.abc import Iterator

from weightzoo.architectures.graph import (
    Activation,
    Architecture,
    BatchNorm,
    Conv,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    Residual,
)


def resnet_18(input_shape: tuple[int, int, int], classes: int, width: int = 64) -> Architecture:
    """ResNet-18 on images of any size, whose first stage has `width` channels.

    With three image channels it has 11,173,962 trained parameters for 10 classes, 11,220,132 for 100 and 11,271,432
    for 200, beside 9,600 running means and variances.
    """
    layers: list[Layer] = [*_conv_norm("conv1", "bn1", input_shape[0], width, kernel=3, stride=1), Activation()]
    channels = width
    for stage in range(1, 5):
        out_channels = width * 2 ** (stage - 1)
        for block, stride in enumerate((1 if stage == 1 else 2, 1)):
            layers += [_basic_block(f"layer{stage}.{block}", channels, out_channels, stride), Activation()]
            channels = out_channels
    layers += [GlobalAveragePool(), Flatten(), Linear("fc", channels, classes)]
    return Architecture("resnet-18", input_shape, tuple(layers))


def _basic_block(name: str, in_channels: int, out_channels: int, stride: int) -> Residual:
    """Two 3x3 convolutions; where the shape changes, the shortcut is a 1x1 convolution."""
    body = (
        *_conv_norm(f"{name}.conv1", f"{name}.bn1", in_channels, out_channels, kernel=3, stride=stride),
        Activation(),
        *_conv_norm(f"{name}.conv2", f"{name}.bn2", out_channels, out_channels, kernel=3, stride=1),
    )
    down = _conv_norm(
        f"{name}.downsample.0", f"{name}.downsample.1", in_channels, out_channels, kernel=1, stride=stride
    )
    return Residual(name, body, tuple(down) if stride > 1 or in_channels != out_channels else ())


def _conv_norm(
    conv: str, norm: str, in_channels: int, out_channels: int, *, kernel: int, stride: int
) -> Iterator[Conv | BatchNorm]:
    yield Conv(conv, in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    yield BatchNorm(norm, out_channels)
