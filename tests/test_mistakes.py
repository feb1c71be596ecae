"""What a new user gets wrong is answered in one line that says what to do."""

from __future__ import annotations

import pickle

import pandas as pd
import pytest

import accelsim as ax
from accelsim.core.errors import AccelsimError


def device():
    return ax.load_hardware("h100-sxm")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ax.simulate("resnet50", "h100"), "unknown hardware 'h100'; did you mean .*h100-sxm"),
        (lambda: ax.simulate("h100-sxm", "resnet50"), "unknown hardware 'resnet50'; that is a workload"),
        (lambda: ax.load_workload("h100-sxm"), "unknown workload 'h100-sxm'; that is hardware"),
        (
            lambda: ax.simulate("resnet50", ["h100-sxm", "l4"]),
            "is no name, file or device; sweep takes",
        ),
        (lambda: ax.simulate("resnet50", "l4", batch=[1, 8]), "not a positive integer; sweep takes several"),
        (lambda: ax.load_workload(42), "int 42 is no name, file, graph or PyTorch module"),
        (lambda: device().replace(**{"memory.bandwith": "4 TB/s"}), "did you mean memory.bandwidth"),
        (lambda: device().replace(**{"memory.bandwidth": "4 TB"}), "in units of bytes, expected bandwidth"),
        (lambda: ax.serve("resnet50", "t4", arrivals=800), r"arrivals 800 .* such as Poisson\(800\)"),
        (
            lambda: ax.serve("resnet50", "t4", arrivals=ax.Poisson(3), batching="triton"),
            "batching 'triton' is no policy; such as Triton",
        ),
        (
            lambda: ax.serve("resnet50", "t4", arrivals=ax.Poisson(3), warmpup=0.1),
            "unknown option 'warmpup'; did you mean warmup",
        ),
        (lambda: ax.predict_ops({"op": "gemm"}, "t4"), "rows come in a DataFrame, not in a dict"),
        (
            lambda: ax.predict_ops(pd.DataFrame({"op": ["matmul"], "precision": "fp16"}), "t4"),
            "unknown 'matmul' in row 0; known names: .*gemm",
        ),
        (
            lambda: ax.simulate("resnet18", "t4").compare(ax.simulate("llama-3.1-70b", "t4")),
            "not with this Infeasible: llama-3.1-70b on t4: infeasible",
        ),
    ],
)
def test_a_mistake_is_one_line(call, words):
    with pytest.raises(AccelsimError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_an_infeasible_point_lacks_is_said_with_the_reason():
    point = ax.simulate("llama-3.1-70b", "t4")
    with pytest.raises(AttributeError, match=r"there is no 'ops': llama-3\.1-70b on t4: infeasible"):
        _ = point.ops
    assert pickle.loads(pickle.dumps(point)) == point
    assert not hasattr(point, "_repr_png_")
