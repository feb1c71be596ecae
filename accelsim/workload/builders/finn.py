"""Quantised networks as FINN streams them: integer products, then thresholds that give the next activation.

Batch normalisation, scales and the activation function are folded into the thresholds (Umuroglu et al.,
FPGA 2017, doi:10.1145/3020078.3021744).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelsim.core.errors import ConfigError
from accelsim.core.precision import Precision, precision
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import forward_only
from accelsim.workload.graph import Graph, Tensor

ACCUMULATOR = "int32"
POOL = "pool"


@forward_only
def build(
    name: str,
    *,
    inputs: Sequence[int],
    dense: Sequence[int],
    convolutions: Sequence[int | str] = (),
    weight_bits: int = 1,
    activation_bits: int = 1,
    input_bits: int = 8,
    quantize_input: bool = False,
    kernel: int = 3,
    padding: int = 0,
    item: str = "image",
) -> Graph:
    """Convolutions and pools, then fully connected layers; the last layer has no thresholds.

    Parameters
    ----------
    inputs : sequence of int
        Shape of one item: (features,) or (channels, spatial...).
    dense : sequence of int
        Widths of the fully connected layers.
    convolutions : sequence of int or "pool"
        Output channels of each convolution; ``pool`` is a max pool by 2.
    weight_bits, activation_bits, input_bits : int
        1, 2, 4 or 8; thresholds have 2^bits - 1 steps.
    quantize_input : bool
        Thresholds bring the input to `activation_bits` first; otherwise the first layer reads `input_bits`.
    kernel, padding : int
        Of every convolution, at stride 1.
    """
    b = _Quantised(
        name, _integer(name, "weight_bits", weight_bits), _integer(name, "activation_bits", activation_bits)
    )
    x = b.input("input", 1, *inputs, dtype=_integer(name, "input_bits", input_bits).name)
    if quantize_input:
        x = b.threshold(x, "input.threshold")
    for i, layer in enumerate(convolutions):
        if layer == POOL:
            x = b.max_pool(x)
        elif isinstance(layer, int):
            x = b.threshold(b.integer_conv(x, layer, kernel, padding, f"conv{i}"), f"conv{i}.threshold")
        else:
            raise ConfigError(
                f"layer {layer!r} is neither a number of channels nor '{POOL}'", f"{name}: convolutions"
            )
    if len(x.shape) > 2:
        x = b.op("reshape", [x], (1, x.elements), stem="flatten", dtype=x.precision.name)
    for i, width in enumerate(dense):
        x = b.integer_dense(x, width, f"fc{i}")
        if i < len(dense) - 1:
            x = b.threshold(x, f"fc{i}.threshold")
    return b.build(item=item)


def _integer(name: str, field: str, bits: int) -> Precision:
    if bits not in (1, 2, 4, 8):
        raise ConfigError(f"{field} {bits!r} is not a width of an integer format", name, "widths: 1, 2, 4, 8")
    return precision(f"int{bits}")


class _Quantised(GraphBuilder):
    """Layers whose weights, activations and accumulators have formats of their own."""

    def __init__(self, name: str, weights: Precision, activations: Precision) -> None:
        super().__init__(name, weights)
        self.activations = activations

    def integer_conv(self, x: Tensor, channels: int, kernel: int, padding: int, stem: str) -> Tensor:
        rank = len(x.shape) - 2
        w = self.weight(f"{stem}.weight", channels, x.shape[1], *(kernel,) * rank)
        out = tuple(size + 2 * padding - kernel + 1 for size in x.shape[2:])
        attributes: dict[str, Any] = {
            "stride": (1,) * rank,
            "padding": (padding,) * rank,
            "dilation": (1,) * rank,
            "groups": 1,
        }
        return self.op("conv", [x, w], (1, channels, *out), stem=stem, dtype=ACCUMULATOR, **attributes)

    def integer_dense(self, x: Tensor, features: int, stem: str) -> Tensor:
        w = self.weight(f"{stem}.weight", x.shape[-1], features)
        return self.op("matmul", [x, w], (1, features), stem=stem, dtype=ACCUMULATOR)

    def threshold(self, x: Tensor, stem: str) -> Tensor:
        """Thresholds per channel; training gives them, but they are no weights: they count as constants."""
        steps = 2**self.activations.bits - 1
        table = Tensor(f"{stem}.table", (x.shape[1], steps), x.precision, "constant")
        return self.op("multi_threshold", [x, table], x.shape, stem=stem, dtype=self.activations.name)

    def max_pool(self, x: Tensor) -> Tensor:
        rank = len(x.shape) - 2
        attributes: dict[str, Any] = {
            "mode": "max",
            "kernel": (2,) * rank,
            "stride": (2,) * rank,
            "padding": (0,) * rank,
        }
        shape = (*x.shape[:2], *(size // 2 for size in x.shape[2:]))
        return self.op("pool", [x], shape, stem="maxpool", dtype=x.precision.name, **attributes)
