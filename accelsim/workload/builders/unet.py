"""U-Net for segmentation (Ronneberger et al., MICCAI 2015, doi:10.1007/978-3-319-24574-4_28)."""

from __future__ import annotations

from accelsim.core.errors import ConfigError
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import forward_only
from accelsim.workload.graph import Graph, Tensor

WIDTHS = (64, 128, 256, 512, 1024)


@forward_only
def build(
    name: str, *, image: int = 572, channels: int = 1, classes: int = 2, precision: str = "fp16"
) -> Graph:
    """U-Net as in the paper: unpadded convolutions, so an image of 572 pixels gives a map of 388.

    Skips are cropped to fit. The pools leave no remainder at 188 pixels and each 16 more.
    """
    if image < 188 or (image - 188) % 16:
        raise ConfigError(
            f"image {image} does not halve evenly through unpadded convolutions", name, "use 188 + 16 n"
        )
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, channels, image, image)
    skips: list[Tensor] = []
    for i, width in enumerate(WIDTHS):
        with b.scope(f"down{i}"):
            x = _double(b, b.pool(x, "max", 2) if i else x, width)
            skips.append(x)
    for i, width in list(enumerate(WIDTHS))[-2::-1]:
        with b.scope(f"up{i}"):
            x = b.conv_transposed(x, width, 2, stride=2)
            crop = b.op("slice", [skips[i]], (1, width, *x.shape[2:]), axes=(2, 3))
            x = _double(b, b.concat(crop, x), width)
    b.conv(x, classes, 1, bias=True, stem="head")
    return b.build(item="image")


def _double(b: GraphBuilder, x: Tensor, width: int) -> Tensor:
    for _ in range(2):
        x = b.activation(b.conv(x, width, 3, padding=0, bias=True))
    return x
