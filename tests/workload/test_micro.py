"""Single operators, recurrent layers and recommendation models from their workload files."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelsim.core.catalog import catalog
from accelsim.core.errors import ConfigError, RequestError
from accelsim.core.yamlfile import read_yaml
from accelsim.workload.builders.families import BUILDERS
from accelsim.workload.builders.micro import build_attention, build_conv, build_gemm
from accelsim.workload.builders.recommendation import build_dlrm
from accelsim.workload.builders.recurrent import GATES, build_recurrent
from accelsim.workload.graph import Graph
from accelsim.workload.load import from_document, load_workload

SHARED = Path(__file__).parents[3] / "shared" / "measurements" / "deepbench" / "DeepBench_NV_V100.xlsx"
MINE = ("gemm", "conv", "attention", "recurrent", "dlrm")


def shipped() -> list[str]:
    return [
        name for name, path in catalog("workloads").files().items() if read_yaml(path).get("builder") in MINE
    ]


def document(builder: str, **parameters: object) -> Graph:
    return from_document({"builder": builder, "parameters": parameters}, "mine", "mine.yaml", None, None)


@pytest.mark.parametrize("name", shipped())
def test_shipped_files_load_exactly_and_scale(name: str) -> None:
    graph = load_workload(name, strict=True)
    assert graph.batch == 1
    assert graph.metadata["title"]
    assert graph.with_batch(4).flops == pytest.approx(4 * graph.flops)
    assert graph.with_batch(4).parameters == graph.parameters


def test_the_catalog_has_the_recurrent_sizes_of_deepbench() -> None:
    cells = {n for n in shipped() if n.startswith(("lstm-", "gru-"))}
    assert cells >= {f"lstm-{h}" for h in (256, 512, 1024, 1536, 2048)} | {
        f"gru-{h}" for h in (512, 1024, 1536, 2048, 2560, 2816)
    }


def test_gemm_closed_form() -> None:
    graph = build_gemm("g", m=5, n=7, k=11)
    assert graph.macs == 5 * 7 * 11
    assert graph.bytes_compulsory == 2 * (5 * 11 + 11 * 7 + 5 * 7)
    nest = graph.with_batch(3).ops[0].loop_nest
    assert nest is not None
    assert (nest.batch, nest.m, nest.n, nest.k) == (1, 15, 7, 11)


def test_conv_closed_form() -> None:
    graph = build_conv(
        "c", channels=8, filters=16, size=14, width=10, kernel=3, stride=2, groups=4, bias=True
    )
    assert graph.macs == 7 * 5 * 16 * 2 * 9
    assert graph.parameters == 16 * 2 * 9 + 16
    assert build_conv("c", channels=3, filters=64, size=224, kernel=7, stride=2, padding=3).outputs[
        0
    ].shape == (1, 64, 112, 112)
    assert build_conv("c", channels=1, filters=1, size=5, kernel=5, padding=0).outputs[0].shape == (
        1,
        1,
        1,
        1,
    )


def test_attention_phases() -> None:
    prefill = build_attention("a", heads=8, tokens=100, width=64, kv_heads=2, phase="prefill")
    decode = build_attention("a", heads=8, tokens=100, width=64, kv_heads=2, phase="decode")
    assert prefill.macs == pytest.approx(8 * 100 * 101 / 2 * 64 * 2)
    assert decode.macs == 8 * 100 * 64 * 2
    assert (prefill.kv_bytes, decode.kv_bytes) == (0, 2 * 2 * 100 * 64 * 2)
    assert load_workload("attention", phase="decode", context=777).inputs[1].shape[2] == 777


def test_context_replaces_steps() -> None:
    short, long = (load_workload("lstm-512", context=c) for c in (10, 30))
    assert long.flops == 3 * short.flops


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_stack(cell: str) -> None:
    h, i, t, gates = 32, 20, 7, GATES[cell]
    graph = build_recurrent("r", cell, hidden=h, steps=t, width=i, layers=4, directions=2)
    rows = 2 * gates * h
    assert graph.macs == t * rows * ((i + h) + 3 * (2 * h + h))
    assert graph.parameters == rows * ((i + h + 2) + 3 * (2 * h + h + 2))
    assert graph.with_batch(6).inputs[0].shape == (t, 6, i)
    assert graph.with_batch(6).outputs[0].shape == (t, 6, 2 * h)


def test_recurrent_parameters_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    for cell, module in (("lstm", torch.nn.LSTM), ("gru", torch.nn.GRU)):
        theirs = module(20, 32, num_layers=3, bidirectional=True)
        ours = build_recurrent("r", cell, hidden=32, steps=5, width=20, layers=3, directions=2)
        assert ours.parameters == sum(p.numel() for p in theirs.parameters())


def deepbench_rows() -> list[tuple[str, int, int, int, float]]:
    """Cell, hidden, batch, steps and the FLOPs that the sheet's TFLOP/s and milliseconds imply."""
    openpyxl = pytest.importorskip("openpyxl")
    if not SHARED.exists():
        pytest.skip("the DeepBench sheet is not here (a folder 'shared' beside the repository)")
    book = openpyxl.load_workbook(SHARED, data_only=True, read_only=True)
    rows: list[tuple[str, int, int, int, float]] = []
    for sheet in book.worksheets:
        cell = ""
        for raw in sheet.iter_rows(values_only=True):
            values = [v for v in raw if v is not None]
            head = str(values[0]) if values else ""
            if head.startswith("Recurrent Layers"):
                cell = head.split(" - ")[1].lower()
            elif head.startswith("All-Reduce"):
                cell = ""
            elif cell in GATES and len(values) > 7:
                _, hidden, batch, steps, forward_ms, _, _, tflops = values[:8]
                rows.append((cell, int(hidden), int(batch), int(steps), tflops * 1e12 * forward_ms * 1e-3))
    return rows


def test_recurrent_product_counts_what_deepbench_counts() -> None:
    rows = deepbench_rows()
    assert len(rows) == 2 * (22 + 19)
    for cell, hidden, batch, steps, flops in rows:
        op = build_recurrent("r", cell, hidden=hidden, steps=steps).with_batch(batch).ops[0]
        ahead, step = op.work.nests
        assert 2 * step.macs == pytest.approx(flops, rel=1e-3)
        assert ahead.macs == step.macs  # input as wide as the state: DeepBench leaves this product out


def test_dlrm_closed_form() -> None:
    graph = build_dlrm("d", tables=[100, 50, 20], width=16, dense=13, bottom=[32, 16], top=[24, 1])
    vectors, pairs = 4, 6
    mlp = 13 * 32 + 32 * 16 + (16 + pairs) * 24 + 24
    assert graph.macs == mlp + vectors * vectors * 16
    assert graph.parameters == 170 * 16 + mlp + 32 + 16 + 24 + 1
    reads = [op.work.bytes_read for op in graph if op.kind == "gather"]
    assert reads == [2 * 16 + 8] * 3  # one fp16 row and one int64 index each


def test_dlrm_cross_and_multi_hot() -> None:
    graph = build_dlrm(
        "d",
        [100, 50],
        width=8,
        dense=4,
        bottom=[8],
        top=[1],
        lookups=[3, 1],
        interaction="cross",
        cross_layers=2,
        cross_rank=5,
    )
    joined = 3 * 8
    assert graph.macs == 4 * 8 + 2 * (2 * joined * 5) + joined
    assert [op.outputs[0].shape for op in graph if op.kind == "gather"] == [(1, 3, 8), (1, 1, 8)]
    assert sum(op.kind == "reduce" for op in graph) == 1


def test_dlrm_files_add_up_to_the_known_size() -> None:
    # About 188 million rows x 128 for DLRM and 204 million for DLRM-DCNv2, both as recalled, in fp32.
    old, new = load_workload("dlrm"), load_workload("dlrm-v2")
    assert old.parameters * 4 / 1e9 == pytest.approx(96, abs=1)
    assert new.parameters * 4 / 1e9 == pytest.approx(105, abs=1)
    assert old["concat_1"].outputs[0].shape == (1, 27 * 26 // 2 + 128)
    gathered = sum(op.outputs[0].shape[1] for op in new if op.kind == "gather")
    assert gathered == 214


@pytest.mark.parametrize(
    ("builder", "parameters", "message"),
    [
        ("gemm", {"m": 0, "n": 1, "k": 1}, "m is 0, expected a whole number of at least 1"),
        ("gemm", {"m": 2.5, "n": 1, "k": 1}, r"m is 2\.5"),
        ("gemm", {"m": True, "n": 1, "k": 1}, "m is True"),
        ("gemm", {"m": 1, "n": 1}, "missing 1 required positional argument: 'k'"),
        ("gemm", {"m": 1, "n": 1, "k": 1, "q": 1}, "unexpected keyword argument 'q'"),
        ("conv", {"channels": 3, "filters": 4, "size": 8, "kernel": "3"}, "kernel is '3'"),
        ("attention", {"heads": 4, "tokens": 8, "width": 8, "window": 0}, "window is 0"),
        ("recurrent", {"cell": "rnn", "hidden": 8, "steps": 2}, "cell is 'rnn'; known names: gru, lstm"),
        ("dlrm", {"tables": [], "width": 8, "dense": 4, "bottom": [8], "top": [1]}, "tables is"),
        (
            "dlrm",
            {"tables": [5], "width": 8, "dense": 4, "bottom": [9], "top": [1]},
            "last bottom layer has 9",
        ),
        (
            "dlrm",
            {"tables": [5], "width": 8, "dense": 4, "bottom": [8], "top": [1], "lookups": [1, 1]},
            "2 lookups",
        ),
    ],
)
def test_bad_parameters_are_refused_in_one_line(
    builder: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        document(builder, **parameters)
    assert "\n" not in str(caught.value)


def test_forward_models_have_no_decode() -> None:
    with pytest.raises(RequestError, match="gemm has no decode phase"):
        load_workload("gemm", phase="decode")
    with pytest.raises(RequestError, match="dlrm has no context length"):
        load_workload("dlrm", context=8)
    with pytest.raises(RequestError, match="lstm-512 has no prefill phase"):
        load_workload("lstm-512", phase="prefill")


def test_unknown_builder_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown builder 'recurent'; did you mean recurrent"):
        document("recurent")
    assert set(MINE) <= set(BUILDERS)
