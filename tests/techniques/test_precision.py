"""Precision plans on graphs and devices."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.core.precision import plan
from accelsim.techniques.precision import with_precision


def formats(graph, name):
    op = graph[name]
    return [t.precision.name for t in (*op.inputs[:2], op.outputs[0])]


def test_a_layer_and_what_follows_it_take_its_plan_and_the_next_layer_the_base():
    graph = ax.load_workload("resnet50")
    mixed = with_precision(graph, plan("fp16; layer1.0.conv1: int8; layer2*: weight=int4,activation=fp16"))
    assert formats(mixed, "layer1.0.conv1") == ["int8", "int8", "int8"]
    assert formats(mixed, "layer1.0.relu")[-1] == "int8"
    assert formats(mixed, "layer1.0.conv2") == ["fp16", "fp16", "fp16"]
    assert formats(mixed, "layer2.0.conv1") == ["fp16", "int4", "fp16"]
    assert mixed.macs == graph.macs


def test_weight_bytes_of_a_plan_are_those_of_its_layers():
    graph = ax.load_workload("resnet50")
    by_format = {name: with_precision(graph, plan(name)).weight_bytes for name in ("int8", "fp16")}
    mixed = with_precision(graph, plan("fp16; fc: int8"))
    fc = sum(t.elements for t in graph["fc"].weights)
    assert by_format["fp16"] - mixed.weight_bytes == fc
    assert by_format["fp16"] == 2 * by_format["int8"]


def test_a_pattern_without_a_layer_is_refused():
    with pytest.raises(RequestError, match=r"no layer of resnet50 matches 'layer9\*'; did you mean layer"):
        ax.simulate("resnet50", "h100-sxm", precision="int8; layer9*: fp16")


@settings(deadline=None, max_examples=8)
@given(st.sampled_from(["h100-sxm", "t4", "tpu-v4"]), st.sets(st.integers(0, 52), max_size=20))
def test_naming_every_layer_is_the_uniform_plan_and_mixing_lies_between(name, picked):
    graph = ax.load_workload("resnet50")
    layers = [op.name for op in graph if op.weights and op.flops]
    base = "bf16" if name != "t4" else "fp16"
    wide, narrow = (ax.simulate(graph, name, precision=p).summary["latency_s"] for p in (base, "int8"))
    every = ax.simulate(graph, name, precision=f"{base}; {'|'.join(layers)}: int8").summary["latency_s"]
    assert every == pytest.approx(narrow, rel=0.01)
    chosen = [layers[i] for i in sorted(picked)]
    text = f"{base}; {'|'.join(chosen)}: int8" if chosen else base
    mixed = ax.simulate(graph, name, precision=text).summary["latency_s"]
    assert narrow * 0.97 <= mixed <= wide * 1.03


def test_notes_say_what_is_emulated():
    notes = ax.simulate("bert-base", "a100-sxm", precision="weight=int4,activation=fp16").notes
    assert "int4 weights are widened to fp16 before products: they save bytes, not arithmetic" in notes
    decode = ax.simulate(
        "llama-3.1-8b", "h100-sxm", phase="decode", context=64, precision="weight=bf16,activation=bf16,kv=fp8"
    )
    assert any(
        note.startswith("fp8_e4m3 cached keys and values are widened to bf16") for note in decode.notes
    )
    assert not any("widened" in n for n in ax.simulate("resnet50", "h100-sxm", precision="int8").notes)


def test_accumulators_are_supported_or_refused():
    request = "weight=int8,activation=int8,accumulator={}"
    refused = ax.simulate("resnet50", "h100-sxm", precision=request.format("int16"))
    assert (refused.reason, refused.have) == ("accumulator", "int32")
    same = ax.simulate("resnet50", "h100-sxm", precision=request.format("int32"))
    assert (
        same.summary["latency_s"]
        == ax.simulate("resnet50", "h100-sxm", precision="int8").summary["latency_s"]
    )
    narrow, wide = (
        ax.simulate("resnet50", "tpu-v4", precision=request.format(w)) for w in ("int16", "int32")
    )
    assert narrow.summary["latency_s"] <= wide.summary["latency_s"]
    assert narrow.stamp.parameters_hash != wide.stamp.parameters_hash
    assert ax.simulate("mobilenet-v2", "eyeriss", precision=request.format("int8")).reason in (
        "accumulator",
        "precision",
    )
