"""Coverage: what is exact, what is approximated, and what that weighs."""

from __future__ import annotations

import pytest

from accelsim.core.errors import UnsupportedOpError
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Op


def mixed() -> Graph:
    """An exact product (traffic 3 x 128 B), a fallback and an approximated product (128 B each way twice)."""
    b = GraphBuilder("mixed")
    x = b.input("x", 8, 8)
    y = b.linear(x, 8, bias=False)
    z = b.op("generic", [y], (8, 8), stem="odd")
    z = b.matmul(z, y, stem="close")
    why = {"odd": "no formula for Einsum", "close": "sparse product counted as dense"}
    origin = {"odd": "Einsum", "close": "SparseMatMul"}
    ops = [
        Op(
            o.name,
            o.kind,
            o.inputs,
            o.outputs,
            o.attributes,
            o.repeat,
            origin.get(o.name, ""),
            why.get(o.name, ""),
        )
        for o in b.ops
    ]
    return Graph("mixed", ops)


def test_shares_of_flops_and_bytes() -> None:
    coverage = mixed().coverage()
    assert coverage.flops_covered_pct == pytest.approx(50)
    assert coverage.bytes_covered_pct == pytest.approx(100 * 3 / 8)
    assert sum(row.flops_pct for row in coverage) == pytest.approx(100)
    assert sum(row.bytes_pct for row in coverage) == pytest.approx(100)
    assert coverage.unsupported == [
        "odd (Einsum): no formula for Einsum",
        "close (SparseMatMul): sparse product counted as dense",
    ]


def test_strict_names_the_first_approximated_operator() -> None:
    with pytest.raises(
        UnsupportedOpError,
        match=r"mixed: operator 'odd' \(Einsum\) and 1 more is approximated: no formula for Einsum",
    ):
        mixed().coverage().require_exact()


def test_exact_graphs_pass_strict() -> None:
    b = GraphBuilder("exact")
    b.activation(b.linear(b.input("x", 4, 8), 8))
    coverage = b.build().coverage()
    coverage.require_exact()
    assert (coverage.flops_covered_pct, coverage.bytes_covered_pct, coverage.unsupported) == (100, 100, [])


def test_a_kind_without_formula_is_unsupported_but_weighed() -> None:
    b = GraphBuilder("holes")
    x = b.linear(b.input("x", 8, 8), 8, bias=False)
    b.op("fourier", [x], (8, 8))
    coverage = b.build().coverage()
    assert {row.kind: row.status for row in coverage} == {"matmul": "supported", "fourier": "unsupported"}
    assert coverage.bytes_covered_pct == pytest.approx(100 * 3 / 5)
    assert coverage.flops_covered_pct == 100
    with pytest.raises(UnsupportedOpError, match=r"fourier.*unsupported"):
        coverage.require_exact()


def test_repeats_weigh_as_often_as_they_run() -> None:
    b = GraphBuilder("deep")
    x = b.input("x", 8, 8)
    with b.repeated(3):
        b.linear(x, 8, bias=False)
    b.op("generic", [x], (8, 8))
    coverage = b.build().coverage()
    assert coverage.bytes_covered_pct == pytest.approx(100 * 9 / 11)
    assert {row.kind: row.count for row in coverage} == {"matmul": 3, "generic": 1}


def test_a_graph_that_only_renames_memory_is_covered() -> None:
    b = GraphBuilder("view")
    b.reshape(b.input("x", 1, 8), 8, 1)
    coverage = b.build().coverage()
    assert (coverage.flops_covered_pct, coverage.bytes_covered_pct) == (100, 100)


def test_table_text_and_html() -> None:
    coverage = mixed().coverage()
    frame = coverage.frame
    assert list(frame.columns) == ["kind", "origin", "status", "count", "flops_pct", "bytes_pct", "why"]
    assert frame["bytes_pct"].is_monotonic_decreasing
    text = repr(coverage)
    assert "50.0 % of FLOPs and 37.5 % of bytes" in text
    assert "generic <- Einsum" in text
    assert len(text.splitlines()) == 2 + len(frame)
    html = coverage._repr_html_()
    assert html.count("<tr>") == 1 + len(frame)
    assert "Einsum" in html


def test_html_escapes_names_from_files() -> None:
    b = GraphBuilder("<script>")
    b.op("generic", [b.input("x", 1, 8)], (1, 8))
    assert "<script>" not in b.build().coverage()._repr_html_()
