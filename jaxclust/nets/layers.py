"""Convolutions as PyTorch has them, since the papers' numbers come from it: paddings and initialisation."""

from typing import Any

from flax import linen as nn

from jaxclust.nets.convolution import convolve

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def conv(channels: int, size: int, stride: int = 1, **kwargs: Any) -> nn.Conv:
    """A convolution without bias, padded alike on both sides ("SAME" is not, at stride 2)."""
    padding = size // 2
    return nn.Conv(
        channels, (size, size), stride, padding=padding, use_bias=False, conv_general_dilated=convolve, **kwargs
    )
