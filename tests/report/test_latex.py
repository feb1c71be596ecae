"""LaTeX tables: escaped, aligned, the best value bold, and they compile."""

from __future__ import annotations

import re
import shutil
import subprocess

import pandas as pd
import pytest

import accelsim as ax
from accelsim.core.errors import ConfigError, RequestError
from accelsim.core.frames import records
from accelsim.report.latex import _digits, _format, document, escaped

NASTY = r"a_b & 50 % $x$ {y} ~^ \end{tabular} <script> #1"


def body(text: str) -> list[list[str]]:
    rows = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    return [[cell.strip() for cell in row.removesuffix(r"\\").split(" & ")] for row in rows]


def test_best_values_are_bold_and_the_numbers_are_the_study(study, tmp_path):
    path = study.to_latex(
        tmp_path / "t.tex", ["hardware", "batch", "latency_s", "throughput_per_s"], where="batch == 4"
    )
    text = path.read_text()
    rows, points = body(text), records(study.where("batch == 4"))
    assert len(rows) == len(points)
    assert r"latency [\si{\micro\second}]" in text or r"latency [\si{\milli\second}]" in text
    best = min(points, key=lambda r: r["latency_s"])
    bold = [row for row in rows if row[2].startswith(r"\bfseries")]
    assert {row[0] for row in bold} == {best["hardware"]}
    fastest = max(points, key=lambda r: r["throughput_per_s"])["throughput_per_s"]
    assert float(bold[0][3].removeprefix(r"\bfseries ")) == pytest.approx(fastest, rel=1e-3)
    assert not any(row[1].startswith(r"\bf") for row in rows)  # neither fewer nor more items are better
    assert text.startswith("% accelsim ")
    assert "model version" in text.splitlines()[0]


def test_an_unknown_number_is_a_dash_and_not_best():
    frame = pd.DataFrame({"hardware": ["a", "b", "c"], "latency_s": [0.002, float("nan"), 0.001]})
    rows = body(document(frame, "x"))
    assert rows == [["a", "2"], ["b", r"{\textendash}"], ["c", r"\bfseries 1"]]
    unknown = body(document(frame.assign(latency_s=float("nan")), "x"))
    assert {row[1] for row in unknown} == {r"{\textendash}"}


def test_digits_and_columns():
    assert [_digits(v) for v in (0.0, 3, 1234.5678, 0.0123456, 12.0, 1.5e9, -2.5)] == [
        "0", "3", "1235", "0.01235", "12", "1.500e+09", "-2.500"
    ]  # fmt: skip
    assert _format(["12.345", r"\bfseries 1.2", r"{\textendash}"]) == "S[table-format=2.3]"


def test_texts_are_escaped():
    bare = re.sub(r"\\text\w+\{\}|\\[&%$#_{}]", "", escaped(NASTY))
    assert not set(bare) & set("&%$#_{}~^\\<>")


def test_requests_that_make_no_table(study, tmp_path):
    with pytest.raises(RequestError, match="no column 'latncy_s'"):
        study.to_latex(tmp_path / "t.tex", ["latncy_s"])
    with pytest.raises(RequestError, match="no feasible point"):
        study.to_latex(tmp_path / "t.tex", where="latency_s < 0")
    many = ax.Study(pd.concat([study.feasible] * 21))
    with pytest.raises(RequestError, match="narrow it"):
        many.to_latex(tmp_path / "t.tex")
    with pytest.raises(ConfigError, match="cannot write here"):
        study.to_latex(tmp_path / "no" / "t.tex", where="batch == 1")
    assert not (tmp_path / "t.tex").exists()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed")
def test_tables_compile_with_a_stock_tex(study, gpu, tmp_path):
    found = subprocess.run(
        ["kpsewhich", "booktabs.sty", "siunitx.sty"], capture_output=True, text=True, check=False
    )
    if len(found.stdout.split()) < 2:
        pytest.skip("this TeX lacks booktabs or siunitx")
    frame = study.feasible.assign(workload=NASTY)
    ax.Study(frame).to_latex(tmp_path / "a.tex", caption=f"Devices & {NASTY}", label="tab:a")
    gpu.to_latex(tmp_path / "b.tex")
    (tmp_path / "all.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,siunitx}\begin{document}\input{a}\input{b}\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "siunitx Warning" not in done.stdout
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
