"""What the image networks share: one phase, and the convolution - normalisation - activation unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelsim.core.errors import ConfigError, RequestError
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Tensor

Build = Callable[[str, Mapping[str, Any], str | None, int | None], Graph]


def forward_only(network: Callable[..., Graph]) -> Build:
    """Builder of a network without phases: ``network(name, **parameters)``, the file's parameters.

    The builder raises `RequestError` when asked for another phase than ``forward`` or for a context length.
    """

    def build(name: str, parameters: Mapping[str, Any], phase: str | None, context: int | None) -> Graph:
        if phase not in (None, "forward"):
            raise RequestError(f"{name} has no phase '{phase}'", hint="leave the phase out")
        if context is not None:
            raise RequestError(f"{name} has no context length", hint="leave the context out")
        return network(name, **parameters)

    build.__doc__ = network.__doc__
    return build


def check_multiple(name: str, field: str, size: int, step: int) -> None:
    """Refuse a size that the strides do not divide: branches of the network would not fit together."""
    if size < step or size % step:
        raise ConfigError(f"{field} {size} is not a multiple of {step}", name, "its branches would not join")


def conv_bn(
    b: GraphBuilder,
    x: Tensor,
    channels: int,
    kernel: int | Sequence[int] = 3,
    *,
    stride: int = 1,
    padding: int | Sequence[int] | str = "same",
    groups: int = 1,
    function: str = "relu",
    stem: str = "conv",
    norm: str = "bn",
) -> Tensor:
    """Convolution without bias, batch normalisation and, unless `function` is empty, an activation."""
    x = b.conv(x, channels, kernel, stride=stride, padding=padding, groups=groups, stem=stem)
    x = b.batch_norm(x, norm)
    return b.activation(x, function) if function else x


def depthwise_bn(
    b: GraphBuilder,
    x: Tensor,
    kernel: int = 3,
    *,
    stride: int = 1,
    function: str = "relu",
    stem: str = "depthwise",
) -> Tensor:
    """`conv_bn` with one filter per channel."""
    return conv_bn(
        b,
        x,
        x.shape[1],
        kernel,
        stride=stride,
        groups=x.shape[1],
        function=function,
        stem=stem,
        norm=f"{stem}.bn",
    )


def squeeze_excite(b: GraphBuilder, x: Tensor, squeezed: int, inner: str, gate: str) -> Tensor:
    """Scale channels by a gate from their averages (Hu et al., CVPR 2018, doi:10.1109/CVPR.2018.00745)."""
    with b.scope("se"):
        s = b.global_pool(x)
        s = b.activation(b.conv(s, squeezed, 1, bias=True, stem="fc1"), inner)
        s = b.activation(b.conv(s, x.shape[1], 1, bias=True, stem="fc2"), gate)
        return b.elementwise("mul", x, s)


def classifier(b: GraphBuilder, x: Tensor, classes: int, stem: str = "fc") -> Tensor:
    """Global average, flatten and a fully connected layer."""
    return b.linear(b.flatten(b.global_pool(x)), classes, stem=stem)
