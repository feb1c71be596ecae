"""The table of operators: what a frame must have, and how a wrong one is refused."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from accelsim.architectures.opschema import COLUMNS, OPS, check, shapes
from accelsim.core.errors import RequestError

GEMM = {"op": "gemm", "precision": "bf16", "m": 128, "n": 256, "k": 64}


def _frame(rows: int = 6, **cells: Any) -> pd.DataFrame:
    return pd.DataFrame([GEMM | cells] * rows)


def test_every_column_of_every_op_is_documented() -> None:
    for name, op in OPS.items():
        assert op.meaning, name
        assert set(op.columns) <= set(COLUMNS), name
        assert not set(op.required) & set(op.optional), name
        for default in op.optional.values():
            assert not isinstance(default, str) or default in op.required, name
    used = {c for op in OPS.values() for c in op.columns}
    assert used == set(COLUMNS)
    for name in ("gemm", "bmm", "conv2d", "attention_prefill", "attention_decode", "moe", "softmax"):
        assert name in OPS
    for name in (
        "layernorm",
        "rmsnorm",
        "elementwise",
        "allreduce",
        "allgather",
        "reducescatter",
        "alltoall",
    ):
        assert name in OPS


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("m", 0, "column 'm' has 0 in row 3"),
        ("n", -4, "column 'n' has -4 in row 3"),
        ("k", 2.5, "column 'k' has 2.5 in row 3"),
        ("m", float("nan"), "column 'm' has nan in row 3"),
        ("m", float("inf"), "column 'm' has inf in row 3"),
        ("m", "many", "column 'm' has many in row 3"),
        ("scale_block", -1, "column 'scale_block' has -1 in row 3"),
        ("op", "gem", "column 'op' has unknown 'gem' in row 3; did you mean gemm?"),
        ("op", None, "column 'op' is empty in row 3"),
        ("precision", "bf61", "column 'precision' has unknown 'bf61' in row 3"),
        ("precision", "weight=int8", "must name weight and activation"),
        ("precision", "wight=int8,activation=bf16", "unknown role 'wight'"),
    ],
)
def test_a_bad_cell_is_named_with_its_row_and_column(column: str, cell: Any, words: str) -> None:
    frame = _frame(scale_block=0).astype(object)
    frame.iloc[3, frame.columns.get_loc(column)] = cell
    with pytest.raises(RequestError) as caught:
        check(frame)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_columns_are_named() -> None:
    with pytest.raises(RequestError, match="no column 'precision'"):
        check(_frame().drop(columns="precision"))
    with pytest.raises(RequestError, match="gemm needs column 'n' and 'k'"):
        check(_frame().drop(columns=["n", "k"]))


def test_several_problems_are_reported_together_and_rows_of_a_mixed_frame_keep_their_place() -> None:
    frame = pd.concat(
        [_frame(4), pd.DataFrame([{"op": "softmax", "precision": "fp16", "rows": 0, "cols": 8}])]
    )
    frame.iloc[2, frame.columns.get_loc("m")] = -1
    with pytest.raises(RequestError) as caught:
        check(frame)
    assert "gemm: column 'm' has -1.0 in row 2" in str(caught.value)
    assert "softmax: column 'rows' has 0.0 in row 4" in str(caught.value)


def test_many_bad_rows_are_counted() -> None:
    frame = _frame(40)
    frame.loc[frame.index >= 10, "k"] = 0
    with pytest.raises(RequestError, match="rows 10, 11, 12, 13, 14 and 25 more"):
        check(frame)


CONV = {"op": "conv2d", "c_in": 32, "c_out": 48, "kernel_h": 3, "kernel_w": 3, "h": 8, "w": 8}
PREFILL = {"op": "attention_prefill", "heads": 8, "head_dim": 64, "seq_q": 16}
EXPERTS = {"op": "moe", "tokens": 8, "hidden": 64, "intermediate": 64, "experts": 4, "topk": 2}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (CONV | {"groups": 5}, "'groups'"),
        (CONV | {"kernel_w": 11, "padding": 1}, "larger than the padded input"),
        (PREFILL | {"kv_heads": 3}, "'kv_heads'"),
        (PREFILL | {"seq_kv": 8}, "'seq_kv'"),
        (EXPERTS | {"topk": 8}, "'topk'"),
        (EXPERTS | {"expert_ranks": 3}, "'expert_ranks'"),
        ({"op": "allreduce", "bytes": 1024, "ranks": 1}, "'ranks'"),
    ],
)
def test_shapes_that_cannot_exist_are_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        check(pd.DataFrame([{"precision": "bf16", **row}]))


def test_empty_optional_cells_take_their_default() -> None:
    frame = pd.DataFrame(
        {
            "op": "attention_decode",
            "precision": "bf16",
            "heads": [8, 16],
            "kv_heads": [None, 2],
            "head_dim": 128,
            "seq_kv": [100, 200],
            "causal": [None, False],
        }
    )
    check(frame)
    found = shapes(frame, "attention_decode")
    assert found["kv_heads"].tolist() == [8, 2]
    assert found["causal"].tolist() == [1, 0]
    assert found["seq_q"].tolist() == [1, 1]
    assert found["batch"].tolist() == [1, 1]
    assert found["window"].tolist() == [0, 0]
