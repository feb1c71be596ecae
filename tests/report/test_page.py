"""The HTML report holds the study's answers, escapes what it is told, and needs no network."""

from __future__ import annotations

import builtins
import json
import re
from html import escape, unescape
from html.parser import HTMLParser

import numpy as np
import pytest

import accelsim as ax
from accelsim.core.errors import ConfigError, MissingExtraError, RequestError
from accelsim.core.frames import records
from accelsim.explore.store import Store, StoreError
from accelsim.report.page import report_store
from accelsim.report.page.evidence import again, code
from tests.strategies import random_study

pytest.importorskip("plotly")

SCRIPT = "<script>alert('x')</script>"
STUDY = """title: Arrays for ResNet-18
question: Which of them is the faster?
space:
  workload: resnet18
  hardware: [gemmini, t4]
  batch: {pow2: [1, 8]}
objectives: [throughput_per_s, energy_per_item_j]
"""


class Reader(HTMLParser):
    """Tags outside the page's own scripts and styles, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if not self.inside:
            self.text += data


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.S)[1])


def read(path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_sections_answer_the_question(study, tmp_path):
    text = read(
        study.report(
            tmp_path / "s.html",
            title="Which one?",
            question="How fast is each?",
            objectives=["throughput_per_s", "energy_per_item_j"],
            where="latency_s < 1",
        )
    )
    seen = Reader(text).text
    for head in ("Verdict", "Candidates", "Trade-off", "Cost and carbon", "Devices", "Infeasible points",
                 "How to reproduce", "How fast is each?"):  # fmt: skip
        assert head in seen
    best = study.where("latency_s < 1").sort_values("throughput_per_s").iloc[-1]
    assert f"{best.hardware} has the best throughput" in seen
    assert "latency_s < 1" in seen
    device = ax.load_hardware("gemmini")
    assert f"{len(device.assumed)} of {len(device.numbers)} hardware numbers are assumed" in seen
    for path in device.assumed:
        assert path in seen, path
        assert device.numbers[path].source in seen
    result = ax.simulate("resnet18", "gemmini", batch=16, precision="int8")
    made = result.cost()
    for name, basis in made.basis.items():
        if name in ("hourly_usd", "embodied_kgco2e"):
            assert basis in seen
    assert result.intervals["latency_s"].basis in seen
    for reason, count in study.frame["reason"].value_counts().items():
        assert str(reason) in seen
        assert count > 0
    assert "study = ax.sweep(" in seen


def test_the_data_are_the_study(study, tmp_path):
    text = read(study.report(tmp_path / "s.html"))
    data = data_of(text)
    known = study.feasible["energy_per_item_j"].notna()
    assert len(data["rows"]) == known.sum()
    assert f"{(~known).sum()} feasible points without latency [s] or energy per item [J]" in text
    front = study.pareto("latency_s", "energy_per_item_j")
    column = data["columns"].index("latency_s")
    assert sorted(data["rows"][i][column] for i in data["front"]) == front["latency_s"].tolist()
    namespace = {"ax": ax}
    for i in data["front"]:
        found = eval(data["codes"][i], namespace)
        assert found.summary["latency_s"] == pytest.approx(data["rows"][i][column])


def test_equal_studies_give_equal_files(study, tmp_path):
    assert read(study.report(tmp_path / "a.html")) == read(study.report(tmp_path / "b.html"))


def test_everything_is_escaped_and_nothing_is_fetched(study, tmp_path):
    frame = study.frame.copy()
    for name in ("workload", "hardware", "reason", "need", "have", "hint", "bound"):
        frame[name] = frame[name].astype(object).where(frame[name].isna(), SCRIPT + name)
    nasty = ax.Study(frame, ("hardware", "batch"))
    text = read(
        nasty.report(
            tmp_path / "s.html", title=SCRIPT, question=SCRIPT, where="latency_s < 9", document=SCRIPT
        )
    )
    assert SCRIPT not in text
    assert escape(SCRIPT) in text
    reader = Reader(text)
    assert reader.tags.count("script") == 3
    assert not {"link", "img", "iframe", "object", "embed"} & set(reader.tags)
    assert unescape(SCRIPT) in reader.text
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"""(src|href)=|url\(|@import""", outside)
    assert "default-src 'none'" in text
    name = data_of(text)["figures"]["pareto"]["data"][0]["name"]  # plotly reads a little HTML
    assert "<" not in name
    assert "&lt;script" in name


def test_no_points_one_point_unknown_and_infeasible(study, tmp_path):
    bad = ax.Study(study.frame[study.frame["status"] != "ok"], study.axes)
    seen = Reader(read(bad.report(tmp_path / "bad.html"))).text
    assert "No device has a feasible point" in seen
    assert "nothing to draw" in seen
    one = ax.Study(study.feasible.head(1), study.axes)
    assert "has the best latency" in Reader(read(one.report(tmp_path / "one.html"))).text
    unknown = ax.Study(study.frame.assign(energy_per_item_j=np.nan, usd_per_million_items=np.nan), study.axes)
    seen = Reader(
        read(unknown.report(tmp_path / "nan.html", objectives=["latency_s", "energy_per_item_j"]))
    ).text
    assert "No feasible point has both objectives" in seen
    assert "kg CO2e embodied" in seen
    none = ax.Study(study.frame.iloc[:0], study.axes)
    assert "0 points" in Reader(read(none.report(tmp_path / "none.html"))).text


def test_a_point_of_a_changed_model_has_no_band(study):
    row = records(study.feasible)[0]
    result, why = again(row)
    assert why == ""
    assert result.summary["latency_s"] == row["latency_s"]
    result, why = again({**row, "latency_s": 2 * row["latency_s"]})
    assert result is None
    assert "gives another latency" in why
    result, why = again({**row, "hardware": "my-card"})
    assert result is None
    assert "my-card" in why


def test_the_code_of_a_point_with_changed_hardware():
    swept = ax.sweep("resnet18", "gemmini", batch=[2], **{"memory.bandwidth": ["8 GB/s", "16 GB/s"]})
    for row in records(swept.feasible):
        found = eval(code(row), {"ax": ax})
        assert found.summary["latency_s"] == pytest.approx(row["latency_s"])


def test_a_store_alone_is_enough(tmp_path):
    from accelsim.explore.document import read_study
    from accelsim.explore.sweep import run

    (tmp_path / "study.yaml").write_text(STUDY)
    document = read_study(tmp_path / "study.yaml")
    store = Store(tmp_path / "study.db")
    store.describe(document.title, document.text)
    run(document.space, store=store, jobs=1)
    store.close()
    seen = Reader(read(report_store(tmp_path / "study.db", tmp_path / "s.html"))).text
    assert "Arrays for ResNet-18" in seen
    assert "Which of them is the faster?" in seen
    assert "has the best throughput" in seen
    assert STUDY.strip() in seen
    undescribed = Store(tmp_path / "plain.db")
    run(document.space, store=undescribed, jobs=1)
    undescribed.close()
    assert "plain" in Reader(read(report_store(tmp_path / "plain.db", tmp_path / "p.html"))).text


def test_stores_that_hold_no_study(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file.*--store"):
        report_store(tmp_path / "no.db", tmp_path / "s.html")
    assert not (tmp_path / "no.db").exists()
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one" * 20)
    with pytest.raises(StoreError):
        report_store(tmp_path / "text.db", tmp_path / "s.html")
    Store(tmp_path / "empty.db").close()
    with pytest.raises(RequestError, match="no rows yet"):
        report_store(tmp_path / "empty.db", tmp_path / "s.html")
    with pytest.raises(ConfigError, match="its folder does not exist"):
        report_store(tmp_path / "empty.db", tmp_path / "no" / "s.html")


def test_bad_requests_are_one_line(study, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="its folder does not exist"):
        study.report(tmp_path / "no" / "s.html")
    with pytest.raises(RequestError, match=r"no column 'latncy_s'.*latency_s"):
        study.report(tmp_path / "s.html", objectives=["latncy_s"])
    with pytest.raises(RequestError, match="cannot be read"):
        study.report(tmp_path / "s.html", where="latency_s <")
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == "plotly":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"plotly.*accelsim-dse\[plot\]"):
        study.report(tmp_path / "s.html")


def test_a_hundred_thousand_points_make_a_small_file_that_says_what_it_draws(tmp_path):
    study = random_study(100_000)
    path = study.report(tmp_path / "s.html")
    assert path.stat().st_size < 8e6
    text = read(path)
    assert "4,000 of " in text
    assert "points drawn" in text
    data = data_of(text)
    assert len(data["rows"]) == 4000
    assert len(data["front"]) == len(study.pareto("latency_s", "energy_per_item_j"))
