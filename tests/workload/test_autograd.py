"""Backward graphs against PyTorch's own counter, closed forms, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import RequestError, UnsupportedOpError
from accelsim.core.precision import precision
from accelsim.workload.autograd import backward, reverse_of, together, training_step
from accelsim.workload.graph import Graph, Op
from tests.strategies import graphs

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def counted(run) -> float:
    """FLOPs that PyTorch counts while a function runs on the CPU."""
    counter = pytest.importorskip("torch.utils.flop_counter")
    with counter.FlopCounterMode(display=False) as mode:
        run()
    return float(mode.get_total_flops())


@pytest.mark.parametrize("wrt", ["weights", "both"])
def test_resnet50_runs_the_flops_that_torch_counts(wrt: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("cpu" if wrt == "both" else "meta"):  # shapes are enough to count once more
        model = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000)).eval()
        x = torch.randn(1, 3, 224, 224, requires_grad=wrt == "both")
        loss = model(x).logits.sum()
    graph = ax.load_workload("resnet50")
    assert backward(graph, wrt).flops == pytest.approx(counted(loss.backward), rel=0.01)


def test_bert_base_runs_the_flops_that_torch_counts() -> None:
    """Attention is counted by hand, five products: PyTorch's counter misses it on a CPU."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(attn_implementation="sdpa")
    model = transformers.BertModel(config).eval()
    output = model(torch.ones((1, 128), dtype=torch.long))
    loss = output.last_hidden_state.sum() + output.pooler_output.sum()
    seen = counted(loss.backward)
    graph = ax.load_workload("bert-base")
    tokens = next(op for op in graph if op.kind == "attention").inputs[0].shape[2]
    assert tokens == 128
    attention = 12 * 5 * 2 * 12 * tokens * tokens * 64
    assert backward(graph, "weights").flops == pytest.approx(seen + attention, rel=0.01)


@pytest.mark.parametrize("wrt", ["weights", "both"])
def test_an_lstm_runs_the_flops_that_torch_counts(wrt: str) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.LSTM(128, 256)
    x = torch.randn(50, 4, 128, requires_grad=wrt == "both")
    held = torch.backends.mkldnn.enabled
    try:
        torch._C._set_mkldnn_enabled(False)
        y, _ = layer(x)
        seen = counted(y.sum().backward)
    finally:
        torch._C._set_mkldnn_enabled(held)
    b = ax.GraphBuilder("lstm")
    t = b.input("x", 50, 4, 128, batch_axis=1)
    w = (b.weight("w_ih", 1024, 128), b.weight("w_hh", 1024, 256))
    b.op("lstm", [t, *w], (50, 4, 256), batch_axis=1, hidden=256, directions=1)
    assert backward(b.build(batch=4), wrt).flops == pytest.approx(seen, rel=1e-9)


def experts_layer(tokens: int = 64, experts: int = 4, top_k: int = 2) -> Graph:
    """Router, two products per expert, gated sum."""
    b = ax.GraphBuilder("experts")
    x = b.input("x", tokens, 32)
    logits = b.linear(x, experts, bias=False)
    sizes = {"experts": experts, "top_k": top_k}
    like = replace(logits, shape=(tokens, top_k))
    values = replace(like, name="values")
    chosen = replace(like, name="chosen", precision=precision("int32", storage=True))
    b.ops.append(Op("route", "topk", (logits,), (values, chosen), {"k": top_k}))
    gates, rows = b.softmax(values), top_k * tokens
    y = b.op("moe_dispatch", [x, chosen], (rows, 32), batch_axis=0, **sizes)
    y = b.op("grouped_matmul", [y, b.weight("up", experts, 32, 48)], (rows, 48), batch_axis=0, **sizes)
    y = b.activation(y)
    y = b.op("grouped_matmul", [y, b.weight("down", experts, 48, 32)], (rows, 32), batch_axis=0, **sizes)
    b.op("moe_combine", [y, gates], (tokens, 32), batch_axis=0, **sizes)
    return b.build()


@pytest.mark.parametrize("wrt", ["inputs", "weights", "both"])
def test_an_expert_layer_equals_torch(wrt: str) -> None:
    torch = pytest.importorskip("torch")
    router, up, down = torch.randn(32, 4), torch.randn(4, 32, 48), torch.randn(4, 48, 32)
    x = torch.randn(64, 32, requires_grad=wrt != "weights")
    for w in (router, up, down):
        w.requires_grad_(wrt != "inputs")
    values, chosen = (x @ router).topk(2)
    gates, y = torch.softmax(values, -1), torch.zeros(64, 32)
    for e in range(4):
        token, rank = (chosen == e).nonzero(as_tuple=True)
        out = torch.relu(x[token] @ up[e]) @ down[e]
        y = y.index_add(0, token, out * gates[token, rank, None])
    graph = experts_layer()
    found = reverse_of(graph, wrt)
    assert found.graph.flops == pytest.approx(counted(y.sum().backward), rel=1e-9)
    shapes = {t.name: t.shape for t in (*graph.inputs, *graph.weights)}
    assert all(t.shape == shapes[name] for name, t in found.gradients.items())
    assert set(found.gradients) == {n for n in shapes if wrt == "both" or (n == "x") == (wrt == "inputs")}


def test_gradients_of_experts_without_rows_are_written_too() -> None:
    graph = experts_layer(tokens=1, experts=16, top_k=1)
    (op,) = [o for o in backward(graph, ["up"]) if o.kind == "grouped_weight_gradient"]
    assert op.work.bytes_written == graph.weights[1].size_bytes == 16 * 32 * 48 * 2
    assert op.flops == 2 * 32 * 48


def test_latent_attention_runs_the_products_that_torch_counts() -> None:
    """PyTorch keeps the scores, so it has one product fewer than a fused kernel, which makes them again."""
    torch = pytest.importorskip("torch")
    b, h, t, latent, rope = 2, 8, 16, 64, 16
    q = torch.randn(b, h, t, latent + rope, requires_grad=True)
    cache = torch.randn(b, t, latent + rope, requires_grad=True)
    scores = q.reshape(b, h * t, -1) @ cache.transpose(1, 2)
    y = torch.softmax(scores, -1) @ cache[..., :latent]
    builder = ax.GraphBuilder("mla")
    held = [builder.input("q", *q.shape), builder.input("cache", *cache.shape)]
    builder.op("mla_attention", held, (b, h, t, latent), latent=latent, rope=rope, causal=False)
    found = reverse_of(builder.build(), ["q", "cache"])
    again = 2 * b * h * t * t * (latent + rope)
    assert found.graph.flops == pytest.approx(counted(y.sum().backward) + again, rel=1e-9)
    assert {n: g.shape for n, g in found.gradients.items()} == {"q": q.shape, "cache": cache.shape}


@pytest.mark.parametrize(
    ("kind", "rows", "back"),
    [
        ("all_reduce", 16, "all_reduce"),
        ("all_gather", 64, "reduce_scatter"),
        ("reduce_scatter", 4, "all_gather"),
        ("all_to_all", 16, "all_to_all"),
        ("send", 16, "send"),
    ],
)
def test_collectives_send_as_much_back_as_forth(kind: str, rows: int, back: str) -> None:
    b = ax.GraphBuilder("link")
    b.op(kind, [b.input("x", 1, 16, 64)], (1, rows, 64), devices=4)
    graph = b.build()
    found = reverse_of(graph, "inputs")
    assert [op.kind for op in found.graph] == [back]
    assert found.graph.ops[0].work.link_bytes == graph.ops[0].work.link_bytes > 0
    assert found.gradients["x"].shape == (1, 16, 64)


@pytest.mark.parametrize("latent", [False, True])
def test_attention_backward_runs_below_the_peak_and_slower_than_forward(latent: bool) -> None:
    b = ax.GraphBuilder("attention", "bf16")
    if latent:
        held = [b.input("q", 4, 32, 2048, 576), b.input("cache", 4, 2048, 576)]
        b.op("mla_attention", held, (4, 32, 2048, 512), latent=512, rope=64, causal=True)
    else:
        b.attention(*(b.input(n, 4, 32, 4096, 128) for n in "qkv"), causal=True)
    graph = b.build()
    reverse = backward(graph, [t.name for t in graph.inputs])
    forth, back = (ax.simulate(g, "h100-sxm").ops["latency_s"].sum() for g in (graph, reverse))
    assert reverse.flops / back < 989e12
    assert 1.5 < back / forth < 3.5


def network(*, groups: int = 1) -> Graph:
    b = ax.GraphBuilder("small")
    x = b.input("x", 1, 3, 32, 32)
    x = b.activation(b.batch_norm(b.conv(x, 16, 3, bias=True)))
    y = b.activation(b.conv(x, 16, 3, groups=groups))
    x = b.pool(b.add(x, y), "max", 2)
    b.softmax(b.linear(b.flatten(x), 10))
    return b.build(item="image")


@pytest.mark.parametrize("wrt", ["inputs", "weights", "both"])
def test_small_network_equals_torch(wrt: str) -> None:
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.BatchNorm2d(16)
            self.b, self.c = torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.Linear(4096, 10)

        def forward(self, x):
            x = torch.relu(self.n(self.a(x)))
            x = torch.max_pool2d(x + torch.relu(self.b(x)), 2)
            return torch.softmax(self.c(x.flatten(1)), -1)

    net = Net().eval()
    net.requires_grad_(wrt != "inputs")
    x = torch.randn(1, 3, 32, 32, requires_grad=wrt != "weights")
    seen = counted(net(x).sum().backward)
    assert backward(network(), wrt).flops == pytest.approx(seen, rel=1e-9)


def test_a_grouped_convolution_has_as_many_products_back_as_forth() -> None:
    """PyTorch's counter has `groups` times as many for the weights of a grouped convolution; so many do not
    exist."""
    graph = network(groups=4)
    first = next(op for op in graph if op.kind == "conv")
    assert backward(graph, "both").flops == 2 * graph.flops
    assert backward(graph, "weights").flops == 2 * graph.flops - first.flops


def test_gradients_have_the_shape_of_what_they_are_of() -> None:
    graph = network()
    found = reverse_of(graph, "both").gradients
    shapes = {t.name: t.shape for t in (*graph.inputs, *graph.weights)}
    assert set(found) == set(shapes)
    for name, gradient in found.items():
        assert gradient.shape == shapes[name], name


@QUIET
@given(graph=graphs, wrt=st.sampled_from(["inputs", "weights", "both"]), batch=st.sampled_from([2, 5]))
def test_work_grows_with_the_batch_and_bytes_cover_what_is_saved(graph, wrt, batch) -> None:
    one, many = backward(graph, wrt), backward(graph.with_batch(batch), wrt)
    assert many.flops == pytest.approx(batch * one.flops)
    assert one.with_batch(batch).flops == pytest.approx(many.flops)
    assert one.with_batch(batch).bytes_compulsory == pytest.approx(many.bytes_compulsory)
    if wrt == "both":
        assert 0.99 * 2 <= one.flops / graph.flops <= 2.5
    assert one.bytes_compulsory >= one.metadata["saved_bytes"] * (1 - 1e-9) or any(
        op.repeat > 1 for op in graph
    )


def test_inputs_and_weights_together_cost_no_more_than_apart() -> None:
    graph = ax.load_workload("mobilenet-v1")
    both, inputs, weights = (backward(graph, w).flops for w in ("both", "inputs", "weights"))
    assert max(inputs, weights) < both <= inputs + weights
    assert both == pytest.approx(2 * graph.flops)


def test_a_part_of_the_network_is_cheaper() -> None:
    """Grad-CAM stops at the last convolution: only what follows it is walked."""
    graph = ax.load_workload("resnet50")
    last = [op for op in graph if op.kind == "conv"][-1].outputs[0].name
    assert backward(graph, [last]).flops == 2 * 2048 * 1000


def test_a_training_step_is_forward_backward_and_update() -> None:
    graph = network()
    for optimiser, states in (("sgd", 0), ("momentum", 1), ("adam", 2)):
        step = training_step(graph, optimiser)
        assert step.flops == pytest.approx(graph.flops + backward(graph, "weights").flops)
        assert step.weight_bytes == pytest.approx((1 + states) * graph.weight_bytes)
        joined = together(graph, backward(graph, "weights"))
        assert step.vector_ops > joined.vector_ops
    # Saved activations are alive between the passes.
    assert step.peak_activation_bytes >= backward(graph, "weights").metadata["saved_bytes"]


def test_a_training_step_runs_on_devices() -> None:
    graph = ax.load_workload("bert-base")
    for device in ("h100-sxm", "tpu-v4"):
        forward, step = (ax.simulate(g, device, batch=8) for g in (graph, training_step(graph)))
        assert 2.5 < step.summary["latency_s"] / forward.summary["latency_s"] < 7


def test_what_has_no_rule_is_named() -> None:
    b = ax.GraphBuilder("experts")
    x = b.input("x", 1, 16, 64)
    y = b.linear(x, 64, stem="before")
    b.op("mystery_op", [y], (1, 16, 64), stem="odd")
    graph = b.build()
    with pytest.raises(UnsupportedOpError, match=r"'odd' \(mystery_op\) has no backward rule.*conv"):
        backward(graph, "weights")


def test_what_makes_no_sense_is_refused() -> None:
    graph = network()
    with pytest.raises(RequestError, match="did you mean weights"):
        backward(graph, "weight")
    with pytest.raises(RequestError, match="no operator of small reads 'conv9'"):
        backward(graph, ["conv9"])
    with pytest.raises(RequestError, match="unknown optimiser 'adamw'; did you mean adam"):
        training_step(graph, "adamw")
    b = ax.GraphBuilder("bare")
    b.activation(b.input("x", 1, 8))
    with pytest.raises(RequestError, match="no weight to train"):
        training_step(b.build())
