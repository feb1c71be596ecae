"""Image, detection, diffusion and small networks against the model zoos, torch and closed forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.core.catalog import catalog
from accelsim.core.errors import ConfigError, RequestError
from accelsim.workload.builders.families import BUILDERS
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

FOLDINGS = Path(__file__).resolve().parents[2].parent / "shared" / "facts" / "finn_folding"

# MACs of convolutions and matrix products, and learned parameters.
# torchvision's definitions (0.28), counted there with torch.utils.flop_counter at 224 x 224; Inception at
# 299 x 299 and without the parameters of its auxiliary head.
TORCHVISION = {
    "alexnet": (714_188_480, 61_100_840),
    "vgg16": (15_470_264_320, 138_357_544),
    "vgg19": (19_632_062_464, 143_667_240),
    "resnet18": (1_814_073_344, 11_689_512),
    "resnet50": (4_089_184_256, 25_557_032),
    "resnet152": (11_513_626_624, 60_192_808),
    "mobilenet-v2": (300_774_272, 3_504_872),
    "mobilenet-v3": (216_589_760, 5_483_032),
    "efficientnet-b0": (385_814_752, 5_288_548),
    "densenet121": (2_834_161_664, 7_978_856),
    "inception-v3": (5_713_216_096, 27_161_264 - 3_326_696),
}

# Other zoos, counted in the same way: Ultralytics' yolov8n at 640 x 640; diffusers' UNet2DConditionModel at
# the sizes of Stable Diffusion 1.5, with its attention as two batched products.
OTHER_ZOOS = {
    "yolov8n": (4_371_993_600, 3_157_200),
    "stable-diffusion-unet": (401_636_720_640, 859_520_964),
}

IMAGE_NETWORKS = [*TORCHVISION, *OTHER_ZOOS, "mobilenet-v1", "ssd-mobilenet", "yolov3-tiny", "unet"]
SMALL = ["keyword-spotting", "jet-tagging", "finn-tfc", "finn-cnv", "finn-cnv-w1a2", "finn-vgg10"]


@pytest.mark.parametrize(
    ("name", "macs", "parameters"), [(k, *v) for k, v in {**TORCHVISION, **OTHER_ZOOS}.items()]
)
def test_sizes_equal_those_of_the_model_zoos(name: str, macs: int, parameters: int) -> None:
    graph = load_workload(name)
    assert graph.macs == macs
    assert graph.parameters == parameters
    assert graph.weight_bytes == 2 * parameters


def test_published_sizes_of_networks_without_a_zoo() -> None:
    # MobileNet v1, table 4 of arXiv:1704.04861: 569 million multiply-adds, 4.2 million parameters.
    v1 = load_workload("mobilenet-v1")
    assert v1.macs == pytest.approx(569e6, rel=1e-3)
    assert v1.parameters == pytest.approx(4.2e6, rel=1e-2)
    # Darknet prints 5.56 billion FLOPs for yolov3-tiny at 416 x 416.
    assert load_workload("yolov3-tiny").flops == pytest.approx(5.56e9, rel=2e-3)
    # MLPerf Tiny's DS-CNN: Keras counts 24 908 parameters, with 2 x 64 running statistics of 9 batch norms.
    assert load_workload("keyword-spotting").parameters == 24_908 - 2 * 64 * 9


def test_perceptron_by_hand() -> None:
    graph = load_workload("jet-tagging")
    products = 16 * 64 + 64 * 32 + 32 * 32 + 32 * 5
    assert graph.macs == products
    assert graph.parameters == products + 64 + 32 + 32 + 5
    assert graph.item == "jet"


def test_keyword_spotting_by_hand() -> None:
    graph = load_workload("keyword-spotting")
    places = 25 * 5
    assert graph.macs == places * (64 * 40 + 4 * (64 * 9 + 64 * 64)) + 64 * 12


@pytest.mark.parametrize("name", [*IMAGE_NETWORKS, *SMALL])
def test_batch_scales_work_and_keeps_weights(name: str) -> None:
    one = load_workload(name)
    many = one.with_batch(6)
    assert many.macs == 6 * one.macs
    assert many.vector_ops == pytest.approx(6 * one.vector_ops)
    assert many.weight_bytes == one.weight_bytes
    assert all(t.batch_axis is not None for op in one for t in op.outputs)


@pytest.mark.parametrize("name", [*IMAGE_NETWORKS, *SMALL])
def test_every_operator_is_exact_and_feeds_an_output(name: str) -> None:
    import networkx as nx

    graph = load_workload(name)
    assert not any(op.approximated for op in graph)
    assert nx.number_weakly_connected_components(graph.nx) == 1
    assert len(graph.outputs) == {"ssd-mobilenet": 2, "yolov3-tiny": 2, "yolov8n": 2}.get(name, 1)


@pytest.mark.parametrize("name", [*IMAGE_NETWORKS, *SMALL])
def test_files_say_what_they_are(name: str) -> None:
    graph = load_workload(name)
    assert all(graph.metadata[field] for field in ("title", "source", "task"))
    assert f"item: {graph.item}\n" in catalog("workloads").find(name).read_text()


@pytest.mark.parametrize("name", ["resnet50", "stable-diffusion-unet", "finn-cnv"])
def test_phases_and_contexts_are_refused(name: str) -> None:
    assert load_workload(name, phase="forward").hash == load_workload(name).hash
    with pytest.raises(RequestError, match="no phase 'decode'"):
        load_workload(name, phase="decode")
    with pytest.raises(RequestError, match="no context length"):
        load_workload(name, context=128)


@pytest.mark.parametrize(
    ("builder", "parameters", "message"),
    [
        ("resnet", {"depth": 51}, "no ResNet has depth 51"),
        ("vgg", {"depth": "16"}, "no VGG has depth '16'"),
        ("mobilenet", {"version": 4}, "no MobileNet has version 4"),
        ("unet", {"image": 512}, "does not halve evenly"),
        ("yolov8n", {"image": 650}, "not a multiple of 32"),
        ("diffusion-unet", {"latent": 60}, "not a multiple of 8"),
        ("finn", {"inputs": [4], "dense": [2], "weight_bits": 3}, "weight_bits 3 is not"),
        ("finn", {"inputs": [4], "dense": [2], "convolutions": ["pol"]}, "'pol' is neither"),
    ],
)
def test_sizes_that_do_not_exist_are_refused(builder: str, parameters: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        BUILDERS[builder]("net", parameters, None, None)
    assert "\n" not in str(caught.value)


def test_unknown_parameter_is_named(tmp_path: Path) -> None:
    file = tmp_path / "net.yaml"
    file.write_text("builder: resnet\nparameters: { depth: 50, dept: 3 }\n")
    with pytest.raises(ConfigError, match="dept"):
        load_workload(file)


# -- shapes -----------------------------------------------------------------------------------------


def test_names_and_shapes_are_those_of_the_zoo() -> None:
    resnet = load_workload("resnet50")
    conv = resnet["layer4.2.conv3"]
    assert conv.inputs[1].shape == (2048, 512, 1, 1)
    assert conv.outputs[0].shape == (1, 2048, 7, 7)
    # Version 1.5 strides in the 3x3 convolution.
    assert resnet["layer2.0.conv1"].attributes["stride"] == (1, 1)
    assert resnet["layer2.0.conv2"].attributes["stride"] == (2, 2)


def test_detectors_predict_at_every_place() -> None:
    places = sum(anchors * side**2 for anchors, side in zip((3, 6, 6, 6, 6, 6), (19, 10, 5, 3, 2, 1)))
    assert [t.shape for t in load_workload("ssd-mobilenet").outputs] == [(1, places, 4), (1, places, 91)]
    cells = 80**2 + 40**2 + 20**2
    assert {t.shape for t in load_workload("yolov8n").outputs} == {(1, 4, cells), (1, 80, cells)}
    assert {t.shape for t in load_workload("yolov3-tiny").outputs} == {(1, 255, 13, 13), (1, 255, 26, 26)}
    assert load_workload("unet").outputs[0].shape == (1, 2, 388, 388)


def test_diffusion_attention_by_hand() -> None:
    """Each transformer block: T x T products over pixels and T x 77 over text, twice each, of width C."""
    graph = load_workload("stable-diffusion-unet")
    blocks = [(64**2, 320)] * 5 + [(32**2, 640)] * 5 + [(16**2, 1280)] * 5 + [(8**2, 1280)]
    attention = sum(op.macs for op in graph if op.kind == "attention")
    assert attention == sum(2 * t * (t + 77) * c for t, c in blocks)


@settings(max_examples=20, deadline=None)
@given(steps=st.integers(1, 12))
def test_convolutions_grow_with_the_area(steps: int) -> None:
    """VGG's padded convolutions and exact pools: MACs of its features are proportional to the pixels."""

    def features(image: int) -> float:
        graph = BUILDERS["vgg"]("vgg", {"depth": 16, "image": image}, None, None)
        return sum(op.macs for op in graph if op.kind == "conv")

    assert features(32 * steps) * 7**2 == features(224) * steps**2


def test_running_statistics_are_constants() -> None:
    norm = load_workload("resnet50")["bn1"]
    assert [t.role for t in norm.inputs[1:]] == ["weight", "weight", "constant", "constant"]


# -- against torch ----------------------------------------------------------------------------------


def _counts(network: object, *shape: int) -> tuple[float, int]:
    """MACs by torch's own counter and parameters; on the meta device, so nothing is computed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.to("meta").eval()(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 2, sum(p.numel() for p in network.parameters())


def _sizes(graph: Graph) -> tuple[float, int]:
    return graph.macs, graph.parameters


def test_resnet50_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def unit(i: int, o: int, k: int, s: int = 1) -> list:
        return [nn.Conv2d(i, o, k, s, k // 2, bias=False), nn.BatchNorm2d(o)]

    class Block(nn.Module):
        def __init__(self, i: int, w: int, s: int) -> None:
            super().__init__()
            self.main = nn.Sequential(
                *unit(i, w, 1), nn.ReLU(), *unit(w, w, 3, s), nn.ReLU(), *unit(w, 4 * w, 1)
            )
            self.short = nn.Sequential(*(unit(i, 4 * w, 1, s) if s > 1 or i != 4 * w else ()))

        def forward(self, x: object) -> object:
            return (self.main(x) + self.short(x)).relu()

    with torch.device("meta"):
        layers = [*unit(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            for i in range(count):
                layers.append(Block(channels, 64 * 2**stage, 2 if stage and not i else 1))
                channels = 256 * 2**stage
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    assert _sizes(load_workload("resnet50")) == _counts(net, 1, 3, 224, 224)


def test_mobilenet_v2_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def unit(i: int, o: int, k: int, s: int = 1, g: int = 1) -> list:
        return [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o), nn.ReLU6()]

    class Block(nn.Module):
        def __init__(self, i: int, o: int, s: int, t: int) -> None:
            super().__init__()
            h = i * t
            expand = unit(i, h, 1) if t > 1 else []
            self.main = nn.Sequential(*expand, *unit(h, h, 3, s, h), *unit(h, o, 1)[:2])
            self.adds = s == 1 and i == o

        def forward(self, x: object) -> object:
            return x + self.main(x) if self.adds else self.main(x)

    table = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    with torch.device("meta"):
        layers, channels = unit(3, 32, 3, 2), 32
        for t, o, count, s in table:
            for i in range(count):
                layers.append(Block(channels, o, 1 if i else s, t))
                channels = o
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
        net = nn.Sequential(*layers, *unit(320, 1280, 1), *head)
    assert _sizes(load_workload("mobilenet-v2")) == _counts(net, 1, 3, 224, 224)


def test_unet_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def double(i: int, o: int) -> object:
        return nn.Sequential(nn.Conv2d(i, o, 3), nn.ReLU(), nn.Conv2d(o, o, 3), nn.ReLU())

    class Level(nn.Module):
        """Convolutions, the level below, an up-convolution, the crop and convolutions again."""

        def __init__(self, i: int, o: int, below: object) -> None:
            super().__init__()
            self.down, self.below = double(i, o), below
            self.up, self.join = nn.ConvTranspose2d(2 * o, o, 2, 2), double(2 * o, o)

        def forward(self, x: object) -> object:
            skip = self.down(x)
            y = self.up(self.below(nn.functional.max_pool2d(skip, 2)))
            edge = (skip.shape[-1] - y.shape[-1]) // 2
            return self.join(torch.cat([skip[:, :, edge:-edge, edge:-edge], y], 1))

    with torch.device("meta"):
        net = double(512, 1024)
        for i, o in ((256, 512), (128, 256), (64, 128), (1, 64)):
            net = Level(i, o, net)
        net = nn.Sequential(net, nn.Conv2d(64, 2, 1))
    assert _sizes(load_workload("unet")) == _counts(net, 1, 1, 572, 572)


# -- FINN -------------------------------------------------------------------------------------------


def _matrices(graph: Graph) -> list[tuple[int, int, int]]:
    """(inputs, outputs, pixels) of each product, in the order of the stream."""
    return [(op.loop_nest.k, op.loop_nest.n, op.loop_nest.m) for op in graph if op.kind in ("conv", "matmul")]


def _folding(name: str) -> list[tuple[int, int, int]]:
    if not FOLDINGS.is_dir():
        pytest.skip("no folder shared/facts/finn_folding beside the repository")
    layers = json.loads((FOLDINGS / f"{name}.json").read_text())["layers"]
    return [(x.get("mw") or x["cin"], x.get("mh") or x["cout"], x.get("pixels") or 1) for x in layers]


def test_tfc_equals_its_folding() -> None:
    assert _matrices(load_workload("finn-tfc")) == _folding("tfc_w1a1")


@pytest.mark.parametrize(
    ("name", "file"), [("finn-cnv", "bnnpynq_cnvW1A1"), ("finn-cnv-w1a2", "bnnpynq_cnvW1A2")]
)
def test_cnv_equals_its_folding(name: str, file: str) -> None:
    *inner, last = _folding(file)
    assert last == (512, 64, 1)  # ten classes, padded to the parallelism of the build
    assert _matrices(load_workload(name)) == [*inner, (512, 10, 1)]


def test_vgg10_equals_its_folding() -> None:
    assert _matrices(load_workload("finn-vgg10")) == _folding("vgg10_radioml")


def test_low_bit_formats() -> None:
    tfc, cnv, wide = (load_workload(n) for n in ("finn-tfc", "finn-cnv", "finn-cnv-w1a2"))
    for graph in (tfc, cnv, wide):
        assert graph.weight_bytes == graph.parameters / 8
        assert all(t.precision.name == "int1" for t in graph.weights)
    assert [op.inputs[0].precision.name for op in tfc if op.kind == "matmul"] == ["int1"] * 4
    assert [op.inputs[0].precision.name for op in cnv if op.kind == "conv"] == ["int8"] + ["int1"] * 5
    assert [op.inputs[0].precision.name for op in wide if op.kind == "conv"] == ["int8"] + ["int2"] * 5


@pytest.mark.parametrize(("name", "bits"), [("finn-tfc", 1), ("finn-cnv-w1a2", 2), ("finn-vgg10", 4)])
def test_thresholds_follow_every_product_but_the_last(name: str, bits: int) -> None:
    graph = load_workload(name)
    *products, last = [op for op in graph if op.kind in ("conv", "matmul")]
    assert last.outputs[0] in graph.outputs
    for op in products:
        (reader,) = graph.consumers[op.outputs[0].name]
        assert reader.kind == "multi_threshold"
        assert reader.inputs[1].shape == (op.outputs[0].shape[1], 2**bits - 1)
