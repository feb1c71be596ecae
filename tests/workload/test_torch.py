"""PyTorch import: networks written here against published counts, closed forms and the ONNX file of the same
network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from accelsim.core.errors import (
    AccelsimError,
    GraphError,
    MissingExtraError,
    ModelFileError,
    RequestError,
    UnsupportedOpError,
)
from accelsim.workload.load import load_workload

torch = pytest.importorskip("torch", reason="the package torch is not installed")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from accelsim.workload.torch import from_torch  # noqa: E402


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride), 1 x 1, and a projected shortcut where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        changes = stride != 1 or channels != out
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if changes
            else None
        )

    def forward(self, x: Any) -> Any:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        channels = 64
        for i, (width, blocks, stride) in enumerate(((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)), 1):
            layers = []
            for k in range(blocks):
                layers.append(Bottleneck(channels, width, stride if k == 0 else 1))
                channels = 4 * width
            setattr(self, f"layer{i}", nn.Sequential(*layers))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(2048, 1000)

    def forward(self, x: Any) -> Any:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(self.pool(x).flatten(1))


class Encoder(nn.Module):
    """Embedding, transformer layers with ``scaled_dot_product_attention``, and a head tied to the
    embedding."""

    def __init__(self, words: int, d: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(words, d)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(d), "qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d),
                    "norm2": nn.LayerNorm(d), "up": nn.Linear(d, hidden), "down": nn.Linear(hidden, d),
                }
            )
            for _ in range(layers)
        )  # fmt: skip
        self.head = nn.Linear(d, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids)
        b, t, d = x.shape
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm1"](x)).chunk(3, -1)
            q, k, v = (z.view(b, t, self.heads, d // self.heads).transpose(1, 2) for z in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=False)
            x = x + block["out"](y.transpose(1, 2).reshape(b, t, d))
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        return self.head(x)


def encoder_macs(b: int, t: int, words: int, d: int, hidden: int, layers: int) -> int:
    """Projections 4 d^2, scores and values 2 t d, feed-forward 2 d hidden per token and layer; the head d
    words."""
    return b * t * (layers * (4 * d * d + 2 * t * d + 2 * d * hidden) + d * words)


def learned(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def resnet() -> Any:
    with torch.device("meta"):
        module = ResNet50()
    return module, from_torch(module, (1, 3, 224, 224))


def test_resnet50_has_its_published_size(resnet: Any) -> None:
    module, graph = resnet
    assert graph.macs / 1e9 == pytest.approx(4.089, rel=1e-3)
    assert graph.parameters == learned(module) == 25_557_032
    assert graph.coverage().flops_covered_pct == pytest.approx(100)
    assert graph.coverage().unsupported == []
    assert graph.with_batch(8).flops == 8 * graph.flops
    assert module.training  # traced in evaluation mode, and put back


def test_resnet50_agrees_with_its_onnx_file(resnet: Any) -> None:
    onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
    from accelsim.workload.onnx import from_onnx

    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
    other = from_onnx(light)
    graph = resnet[1]
    assert graph.macs == pytest.approx(other.macs, rel=5e-3)
    assert graph.parameters == other.parameters
    count = {kind: sum(op.kind == kind for op in graph) for kind in ("conv", "batch_norm", "pool", "matmul")}
    assert count == {kind: sum(op.kind == kind for op in other) for kind in count}


def test_op_names_are_module_paths(resnet: Any) -> None:
    graph = resnet[1]
    assert graph["layer4.2.conv3"].kind == "conv"
    assert graph["layer4.2.conv3"].weights[0].name == "layer4.2.conv3.weight"
    assert graph["layer1.0.shortcut.1"].kind == "batch_norm"
    assert graph["layer1.0.add"].kind == "elementwise"
    assert [t.role for t in graph["layer1.0.bn1"].inputs[1:]] == ["weight", "weight", "constant", "constant"]


def test_encoder_matches_the_closed_form_and_scales() -> None:
    sizes = {"words": 120, "d": 64, "hidden": 256, "layers": 2}
    module = Encoder(heads=4, **sizes)
    one, three = from_torch(module, ((1, 20), "int64")), from_torch(module, ((3, 20), torch.int64))
    assert one.macs == encoder_macs(1, 20, **sizes)
    assert three.macs == encoder_macs(3, 20, **sizes)
    assert one.parameters == learned(module)  # the tied head counts once
    assert one.coverage().unsupported == []
    assert one.with_batch(3).hash == three.hash


def test_transformer_encoder_layer_of_torch() -> None:
    d, hidden, t = 48, 96, 10
    module = nn.TransformerEncoderLayer(d, 4, hidden, batch_first=True)
    graph = from_torch(module, (2, t, d))
    assert graph.macs == 2 * t * (4 * d * d + 2 * t * d + 2 * d * hidden)
    assert graph.parameters == learned(module)
    assert sum(op.kind == "attention" for op in graph) == 1
    assert graph.with_batch(6).flops == 3 * graph.flops


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_recurrent_layers_match_the_closed_form(kind: str, gates: int, batch_first: bool) -> None:
    i, h, t = 6, 10, 7

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(nn, kind)(i, h, 2, bidirectional=True, batch_first=batch_first)

        def forward(self, x: Any) -> Any:
            x = x if batch_first else x.transpose(0, 1)
            return self.rnn(x)[0]

    module = Tagger()
    graph = from_torch(module, (3, t, i))
    assert graph.macs == 3 * t * 2 * gates * h * ((i + h) + (2 * h + h))
    assert graph.parameters == learned(module)
    assert graph.with_batch(6).flops == 2 * graph.flops
    assert {"rnn.l0", "rnn.l1_reverse"} <= {op.name for op in graph}


def test_a_class_token_grows_with_the_batch() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 16))
            self.position = nn.Parameter(torch.zeros(1, 33, 16))

        def forward(self, x: Any) -> Any:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
            return (x + self.position[:, : x.shape[1]])[:, 0]

    module = Tokens()
    graph = from_torch(module, (1, 8, 16))
    assert graph.parameters == learned(module)
    assert graph.with_batch(5).hash == from_torch(module, (5, 8, 16)).hash
    assert graph.with_batch(5).outputs[0].shape == (5, 16)


class Mixed(nn.Module):
    """Convolutions of every rank and kind, norms, resizing, indexing, an einsum, a write in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding="same", groups=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2, groups=2)
        self.norm, self.instance = nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True)
        self.flat, self.prelu = nn.Conv1d(8, 4, 5), nn.PReLU()
        self.register_buffer("scale", torch.ones(8, 1, 1))

    def forward(self, x: Any) -> Any:
        x = self.instance(self.norm(F.silu(self.conv(x)))) * self.scale
        x = F.interpolate(self.up(x), scale_factor=0.5, mode="bilinear")
        x = F.pad(F.avg_pool2d(x, 2), (1, 1)).clamp_(0, 6)
        y = self.prelu(self.flat(x.flatten(2)))
        y = torch.einsum("bct,bdt->bcd", y, y).softmax(-1)
        with torch.no_grad():
            y = torch.stack([y, y.pow(2)], 1)
        return {"best": y.topk(2)[0], "mean": y.mean((1, 2)), "picked": y.index_select(1, torch.tensor([0]))}


def test_many_operators_are_covered_and_scale() -> None:
    module = Mixed()
    graph = from_torch(module, (1, 3, 8, 8))
    assert graph.coverage().unsupported == []
    assert graph.parameters == learned(module)
    convs = 64 * 8 * 27 + 64 * 8 * 4 * 4
    positions = 4 * 6 - 4
    assert graph.macs == convs + positions * 4 * 8 * 5 + 4 * 4 * positions
    assert graph.with_batch(4).hash == from_torch(module, (4, 3, 8, 8)).hash


def test_precision_follows_the_module() -> None:
    module = nn.Linear(8, 4).to(torch.bfloat16)
    graph = from_torch(module, (2, 8))
    assert {t.precision.name for op in graph for t in (*op.inputs, *op.outputs)} == {"bf16"}


def test_unknown_operators_are_flagged_with_their_module() -> None:
    class Strange(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.linalg.inv(x)

    graph = from_torch(nn.Sequential(nn.Linear(8, 8), Strange()), (2, 8, 8))
    odd = [op for op in graph if op.kind == "generic"]
    assert odd
    assert all(op.name.startswith("1.") and "linalg" in op.approximated for op in odd)
    assert graph.coverage().flops_covered_pct == pytest.approx(100)
    with pytest.raises(UnsupportedOpError):
        load_workload(nn.Sequential(nn.Linear(8, 8), Strange()), inputs=[(2, 8, 8)], strict=True)


def test_items_that_meet_cannot_be_scaled() -> None:
    class Gram(nn.Module):
        def forward(self, x: Any) -> Any:
            return x @ x.T

    graph = from_torch(Gram(), (3, 8))
    assert graph.macs == 3 * 8 * 3
    with pytest.raises(GraphError, match="batch"):
        graph.with_batch(6)


def test_load_workload_takes_a_module() -> None:
    graph = load_workload(nn.Linear(8, 4), inputs=[torch.zeros(2, 8)])
    assert (graph.macs, graph.batch, graph.name) == (2 * 8 * 4, 2, "Linear")


# -- bad input --------------------------------------------------------------------------------------------


def one_line(kind: type[AccelsimError], call: Any, *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    assert caught.value.__cause__ is None


def test_bad_input_is_one_line() -> None:
    linear = nn.Linear(8, 4)
    one_line(RequestError, lambda: from_torch(linear), "example inputs", "Linear")
    one_line(RequestError, lambda: load_workload(linear), "example inputs")
    one_line(RequestError, lambda: from_torch("linear", (1, 8)), "torch.nn.Module")
    one_line(RequestError, lambda: from_torch(linear, (0, 8)), "positive")
    one_line(RequestError, lambda: from_torch(linear, ((1, 8), "float33")), "float33")
    one_line(ModelFileError, lambda: from_torch(linear, (1, 9)), "Linear")
    one_line(ModelFileError, lambda: from_torch(linear, (1, 8), (1, 8)), "Linear")


def test_shapes_that_depend_on_the_data() -> None:
    class Picks(nn.Module):
        def forward(self, x: Any) -> Any:
            return x[x > 0]

    one_line(UnsupportedOpError, lambda: from_torch(Picks(), (4, 8)), "depends on the data")


def test_branches_on_data_cannot_be_traced() -> None:
    class Branches(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2 if x.sum() > 0 else x

    one_line(ModelFileError, lambda: from_torch(Branches(), (4, 8)), "Branches")


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    one_line(MissingExtraError, lambda: from_torch(None, (1, 8)), "accelsim-dse[torch]")
