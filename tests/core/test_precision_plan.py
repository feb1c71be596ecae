"""Plans by role."""

from __future__ import annotations

import pytest

from accelsim.core.errors import RequestError, UnknownNameError
from accelsim.core.precision import plan


@pytest.mark.parametrize(
    ("request_", "weight", "activation", "kv"),
    [
        ("fp8", "fp8_e4m3", "fp8_e4m3", "fp8_e4m3"),
        ("weight=int4, activation=bf16", "int4", "bf16", "bf16"),
        ("weight=bf16,activation=bf16,kv=fp8_e4m3", "bf16", "bf16", "fp8_e4m3"),
        ({"weight": "int8", "activation": "fp16"}, "int8", "fp16", "fp16"),
    ],
)
def test_formats_by_role(request_, weight, activation, kv):
    found = plan(request_)
    assert [found.weight.name, found.activation.name, found.kv.name] == [weight, activation, kv]
    assert plan(found.name) == found


def test_mistakes_name_themselves():
    with pytest.raises(UnknownNameError, match="unknown precision 'int3'"):
        plan("weight=int3,activation=bf16")
    with pytest.raises(RequestError, match="must name weight and activation"):
        plan("weight=int8")
    with pytest.raises(RequestError, match="unknown role 'weights'"):
        plan("weights=int8,activation=bf16")


@pytest.mark.parametrize(
    "text",
    [
        "int8; conv1|fc*: fp16",
        "int8; model/a:0: weight=int4,activation=fp16; c: fp16",
        "weight=int8,activation=int8,accumulator=int32",
    ],
)
def test_plans_by_layer_and_accumulators_read_back(text):
    found = plan(text)
    assert plan(found.name) == found
    assert hash(plan(found.name)) == hash(found)


def test_the_first_pattern_that_matches_counts_and_mappings_say_the_same():
    found = plan("int8; fc1: fp16; fc*: weight=int4,activation=bf16; a[0]: fp32")
    assert found.of_layer("fc1").name == "fp16"
    assert found.of_layer("fc2").weight.name == "int4"
    assert found.of_layer("a[0]").name == "fp32", "a name counts as it is, whatever its signs mean"
    assert found.of_layer("conv") is None
    layers = {"fc1": "fp16", "fc*": {"weight": "int4", "activation": "bf16"}, "a[0]": "fp32"}
    assert plan({"weight": "int8", "activation": "int8", "layers": layers}) == found


def test_mistakes_in_layers_name_themselves():
    with pytest.raises(RequestError, match="cannot read 'conv1' in a precision plan; write: PATTERN: FORMAT"):
        plan("int8; conv1")
    with pytest.raises(UnknownNameError, match="unknown precision 'int3'"):
        plan("int8; conv1: int3")
    with pytest.raises(RequestError, match="layers of its own"):
        plan({"weight": "int8", "activation": "int8", "layers": {"a": "int8; b: fp16"}})
