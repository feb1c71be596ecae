"""The denoising U-Net of latent diffusion (Rombach et al., CVPR 2022, doi:10.1109/CVPR52688.2022.01042)."""

from __future__ import annotations

from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import check_multiple, forward_only
from accelsim.workload.graph import Graph, Tensor

GROUPS = 32
BLOCKS = 2  # residual blocks per level on the way down; one more on the way up


@forward_only
def build(
    name: str,
    *,
    latent: int = 64,
    channels: int = 4,
    widths: tuple[int, ...] = (320, 640, 1280, 1280),
    heads: int = 8,
    tokens: int = 77,
    text_width: int = 768,
    precision: str = "fp16",
) -> Graph:
    """One denoising step of one latent, at the sizes of Stable Diffusion 1.x.

    All levels but the deepest attend to the text. Guidance runs the network twice per step (batch 2). The
    sinusoids of the time step are an input.
    """
    check_multiple(name, "latent", latent, 2 ** (len(widths) - 1))
    b = GraphBuilder(name, precision)
    x = b.input("latent", 1, channels, latent, latent)
    text = b.input("text", 1, tokens, text_width)
    time = b.input("time", 1, widths[0])
    net = _Network(b, text, heads)
    with b.scope("time_embedding"):
        time = b.activation(b.linear(time, 4 * widths[0], stem="linear_1"), "silu")
        net.time = b.activation(b.linear(time, 4 * widths[0], stem="linear_2"), "silu")
    deepest = len(widths) - 1
    x = b.conv(x, widths[0], 3, bias=True, stem="conv_in")
    skips = [x]
    for level, width in enumerate(widths):
        with b.scope(f"down_blocks.{level}"):
            for i in range(BLOCKS):
                x = net.block(x, width, i, attends=level < deepest)
                skips.append(x)
            if level < deepest:
                x = b.conv(x, width, 3, stride=2, bias=True, stem="downsample")
                skips.append(x)
    with b.scope("mid_block"):
        x = net.block(x, widths[-1], 0, attends=True)
        x = net.block(x, widths[-1], 1, attends=False)
    for level, width in list(enumerate(widths))[::-1]:
        with b.scope(f"up_blocks.{deepest - level}"):
            for i in range(BLOCKS + 1):
                x = net.block(b.concat(x, skips.pop()), width, i, attends=level < deepest)
            if level:
                x = b.conv(b.resize(x, 2), width, 3, bias=True, stem="upsample")
    x = b.activation(b.group_norm(x, GROUPS, "conv_norm_out"), "silu")
    b.conv(x, channels, 3, bias=True, stem="conv_out")
    return b.build(item="image")


class _Network:
    """Blocks that share the text and the time embedding (after its activation)."""

    time: Tensor

    def __init__(self, b: GraphBuilder, text: Tensor, heads: int) -> None:
        self.b, self.text, self.heads = b, text, heads

    def block(self, x: Tensor, width: int, index: int, *, attends: bool) -> Tensor:
        with self.b.scope(f"resnets.{index}"):
            x = self.residual(x, width)
        if attends:
            with self.b.scope(f"attentions.{index}"):
                x = self.transformer(x)
        return x

    def residual(self, x: Tensor, width: int) -> Tensor:
        """Two convolutions with the time embedding added between them."""
        b = self.b
        y = b.activation(b.group_norm(x, GROUPS, "norm1"), "silu")
        y = b.conv(y, width, 3, bias=True, stem="conv1")
        shift = b.linear(self.time, width, stem="time_emb_proj")
        y = b.add(y, b.reshape(shift, 1, width, 1, 1))
        y = b.activation(b.group_norm(y, GROUPS, "norm2"), "silu")
        y = b.conv(y, width, 3, bias=True, stem="conv2")
        if x.shape[1] != width:
            x = b.conv(x, width, 1, bias=True, stem="conv_shortcut")
        return b.add(x, y)

    def transformer(self, x: Tensor) -> Tensor:
        """Self-attention over pixels, cross-attention to the text and a gated feed-forward block."""
        b, (_, width, *size) = self.b, x.shape
        y = b.conv(b.group_norm(x, GROUPS), width, 1, bias=True, stem="proj_in")
        y = b.transpose(b.reshape(y, 1, width, size[0] * size[1]), 0, 2, 1)
        with b.scope("attn1"):
            z = b.layer_norm(y)
            y = b.add(y, self.attention(z, z))
        with b.scope("attn2"):
            y = b.add(y, self.attention(b.layer_norm(y), self.text))
        with b.scope("ff"):
            value, gate = b.views(b.linear(b.layer_norm(y), 8 * width, stem="proj"), 2)
            y = b.add(y, b.linear(b.elementwise("geglu", gate, value), width, stem="out"))
        y = b.reshape(b.transpose(y, 0, 2, 1), 1, width, *size)
        return b.add(x, b.conv(y, width, 1, bias=True, stem="proj_out"))

    def attention(self, x: Tensor, source: Tensor) -> Tensor:
        b, width = self.b, x.shape[-1]

        def project(t: Tensor, stem: str) -> Tensor:
            y = b.linear(t, width, bias=False, stem=stem)
            return b.reshape(y, 1, self.heads, t.shape[1], width // self.heads)

        y = b.attention(project(x, "to_q"), project(source, "to_k"), project(source, "to_v"))
        return b.linear(b.reshape(y, *x.shape), width, stem="to_out")
