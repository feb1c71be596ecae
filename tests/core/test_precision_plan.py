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
