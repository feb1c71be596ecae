"""Pictures show the numbers, say what they leave out, and need no display."""

from __future__ import annotations

import builtins
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import accelsim as ax
from accelsim.core.errors import ConfigError, MissingExtraError, RequestError
from accelsim.engine.result import Result

pytest.importorskip("matplotlib")

from accelsim.report import plots
from accelsim.report.plots import lanes, style
from accelsim.report.plots.inside import utilisation
from accelsim.report.plots.roofs import bandwidths, peaks, points

EMPTY = pd.DataFrame(
    {c: pd.Series(dtype=float) for c in ("batch", "latency_s", "latency_low_s", "latency_high_s",
                                         "throughput_per_s", "energy_per_item_j", "error")}
    | {c: pd.Series(dtype=str) for c in ("workload", "hardware", "precision", "status", "reason", "plan")}
)  # fmt: skip
MEASURED = pd.DataFrame(
    {"device": ["a", "a", "b"], "latency_s": [1e-3, 2e-3, 5e-3], "predicted_s": [1.1e-3, 2e-3, 4e-3]}
)
EFFECTS = pd.DataFrame({"parameter": ["batch"], "share": [0.9], "best_value": [1], "factor": [3.0]})
TORNADO = pd.DataFrame({"parameter": ["a", "b"], "elasticity": [0.5, -1.0], "status": ["cited", "assumed"]})
PLANS = pd.DataFrame({"plan": ["x", "y"], "latency_s": [1e-3, 2e-3], "error": [0.1, 0.01]})

TABLES = {
    "pareto": lambda frame, **kw: plots.pareto(frame, **kw),
    "heatmap": lambda frame, **kw: plots.heatmap(frame, **kw),
    "parallel": lambda frame, **kw: plots.parallel(frame, **kw),
    "batch_curves": lambda frame, **kw: plots.batch_curves(frame, **kw),
}


def texts(axes) -> str:
    held = [t.get_text() for t in axes.texts] + [axes.get_title(loc="left")]
    return " ".join(" ".join(held).split())


def drawn(axes) -> bytes:
    return plots.png(axes, dpi=40)


# -- studies


@pytest.mark.parametrize("name", TABLES)
def test_charts_of_a_study(name, study):
    axes = TABLES[name](study.frame)
    assert drawn(axes).startswith(b"\x89PNG")
    one = study.feasible.head(1)
    assert drawn(TABLES[name](one))


@pytest.mark.parametrize("name", TABLES)
def test_no_points_all_unknown_and_all_infeasible_are_said(name, study):
    why = texts(TABLES[name](EMPTY))
    assert "no " in why
    unknown = study.feasible.assign(
        latency_s=np.nan, energy_per_item_j=np.nan, throughput_per_s=np.nan, latency_low_s=np.nan
    )
    axes = TABLES[name](unknown)
    assert "no feasible point" in texts(axes)
    drawn(axes)
    bad = study.frame[study.frame["status"] != "ok"]
    axes = TABLES[name](bad)
    assert "no feasible point" in texts(axes)
    drawn(axes)


def test_front_of_the_picture_is_the_front_of_the_study(study):
    axes = study.plot.pareto()
    front = study.pareto("latency_s", "energy_per_item_j")
    line = next(line for line in axes.get_lines() if str(line.get_label()).startswith("front"))
    assert line.get_xdata().tolist() == front["latency_s"].tolist()
    assert line.get_ydata().tolist() == front["energy_per_item_j"].tolist()
    assert f"{study.infeasible} infeasible" in texts(axes)


def test_the_front_of_more_is_better_steps_the_other_way(study):
    front = study.plot.pareto("throughput_per_s", "energy_per_item_j").get_lines()[0]
    assert front.get_drawstyle() == "steps-pre"
    assert study.plot.pareto().get_lines()[0].get_drawstyle() == "steps-post"


def test_a_million_points_are_thinned_and_said():
    rng = np.random.default_rng(0)
    n = 1_000_000
    frame = pd.DataFrame(
        {
            "hardware": rng.choice(["a", "b"], n), "status": "ok", "latency_s": rng.lognormal(size=n),
            "energy_per_item_j": rng.lognormal(size=n), "batch": rng.integers(1, 9, n), "precision": "int8",
        }
    )  # fmt: skip
    axes = plots.pareto(frame)
    shown = sum(len(c.get_offsets()) for c in axes.collections if len(c.get_offsets()) > 100)
    assert shown <= style.DRAWN
    assert f"{style.DRAWN:,} of 1,000,000 points drawn" in texts(axes)
    assert "2,000 of 1,000,000 points drawn" in texts(plots.parallel(frame, ("batch", "latency_s")))
    errors = frame.rename(columns={"energy_per_item_j": "predicted_s", "hardware": "device"})
    assert "20,000 of 1,000,000 points drawn" in texts(plots.predicted_measured(errors))
    kept, _ = style.thinned(frame, 10, frame.index < 3)
    assert len(kept) == 10
    assert kept.index[:3].tolist() == [0, 1, 2]


def test_columns_that_do_not_exist_are_named(study):
    with pytest.raises(RequestError, match=r"no column 'latncy_s'.*latency_s"):
        study.plot.pareto("latncy_s")
    with pytest.raises(RequestError, match="two different"):
        study.plot.pareto("latency_s", "latency_s")
    with pytest.raises(RequestError, match="two different"):
        study.plot.heatmap(x="batch", y="batch")
    with pytest.raises(RequestError, match="at least two"):
        study.plot.parallel(["batch"])
    with pytest.raises(RequestError, match=r"unknown width 'wide'.*column"):
        study.plot.pareto(width="wide")
    with pytest.raises(RequestError, match="cannot be read"):
        study.plot.pareto(where="latency_s <")


def test_heat_map_holds_the_numbers_and_hatches_the_infeasible(study):
    axes = study.plot.heatmap(x="batch", y="precision", value="latency_s")
    frame = study.frame
    grid = axes.images[0].get_array()
    best = frame[(frame.precision == "int8") & (frame.batch == 4)].latency_s.min()
    row = [t.get_text() for t in axes.get_yticklabels()].index("int8")
    assert grid[row, 2] == pytest.approx(best)
    assert "best of" in texts(axes)
    t4 = plots.heatmap(frame[frame.hardware == "t4"], value="latency_s")
    assert "hatched: infeasible (5)" in texts(t4)
    assert len(t4.patches) == 5


def test_effects_tornado_tradeoff_and_measurements(study):
    axes = study.plot.effects()
    shares = ax.main_effects(study, "latency_s")["share"]
    assert [p.get_width() for p in axes.patches] == pytest.approx((100 * shares).tolist())
    for table, chart, nan in (
        (EFFECTS, plots.effects, "share"),
        (TORNADO, plots.tornado, "elasticity"),
        (PLANS, plots.tradeoff, "error"),
        (MEASURED, plots.predicted_measured, "predicted_s"),
        (MEASURED, plots.error_by_size, "predicted_s"),
    ):
        drawn(chart(table))
        drawn(chart(table.head(1)))
        for held in (table.iloc[:0], table.assign(**{nan: np.nan})):
            axes = chart(held)
            assert len(texts(axes)) > 8, chart
            drawn(axes)
        with pytest.raises(RequestError, match="no column"):
            chart(table.drop(columns=nan))
    assert "median absolute error 10.0%" in texts(plots.predicted_measured(MEASURED))


# -- results


def test_kernels_lie_under_their_roofs(gpu):
    device = gpu.programs[0].device
    table = points(gpu, "dram")
    roof = np.minimum(bandwidths(device)["dram"] * table.flop_per_byte, max(peaks(device)))
    known = table.flop_per_byte.notna()
    assert (table.flop_per_s[known] <= roof[known] * 1.001).all()
    assert set(bandwidths(device)) == {"dram", "l2"}
    int8 = next(rate for rate, names in peaks(device).items() if "int8" in names)
    assert int8 == pytest.approx(624e12, rel=0.01)  # dense, of NVIDIA's data sheet


def test_roofline_of_every_architecture_and_level(gpu, systolic, pipeline):
    for result in (gpu, systolic, pipeline):
        drawn(result.plot.roofline())
        drawn(result.plot.roofline(level="all"))
    assert "move nothing at this level" in texts(pipeline.plot.roofline())
    with pytest.raises(RequestError, match=r"no traffic of a level 'l3'.*dram, l2"):
        gpu.plot.roofline(level="l3")


def test_measured_kernels_are_laid_over(gpu):
    table = pd.DataFrame({"op": gpu.ops["op"], "latency_s": 2 * gpu.ops["latency_s"]})
    found = points(gpu, "dram", table)
    assert (found.measured_flop_per_s * 2).to_numpy() == pytest.approx(found.flop_per_s.to_numpy())
    labels = gpu.plot.roofline(measured=table).get_legend_handles_labels()[1]
    assert "measured" in labels
    with pytest.raises(RequestError, match="the measurements has no column 'latency_s'"):
        gpu.plot.roofline(measured=table[["op"]])


def test_a_loaded_result_finds_its_device_or_says_so(gpu, tmp_path, pipeline):
    held = Result.load(gpu.save(tmp_path / "r.json"))
    drawn(held.plot.roofline())
    changed = ax.simulate("resnet18", ax.load_hardware("a100-sxm").replace(**{"memory.bandwidth": "3 TB/s"}))
    lost = Result.load(changed.save(tmp_path / "c.json"))
    with pytest.raises(RequestError, match="pass device="):
        lost.plot.roofline()
    drawn(lost.plot.roofline(device="a100-sxm"))
    with pytest.raises(RequestError, match="simulate it again"):
        Result.load(pipeline.save(tmp_path / "p.json")).plot.fifos()


def test_bars_of_the_layers_add_up(gpu, systolic):
    axes = gpu.plot.layers(top=1000)
    total = sum(p.get_width() for p in axes.patches)
    assert total == pytest.approx(gpu.ops["total_s"].sum())
    assert "not shown" in texts(gpu.plot.layers(top=3))
    drawn(systolic.plot.layers(value="dram_bytes", by="kind"))
    with pytest.raises(RequestError, match="not a positive"):
        gpu.plot.layers(top=0)
    with pytest.raises(RequestError, match="not divided"):
        systolic.plot.layers(split="stalls")
    with pytest.raises(RequestError, match="no column 'latncy'"):
        gpu.plot.layers(value="latncy")


def test_timeline_draws_every_busy_second(gpu, pipeline):
    for result in (gpu, pipeline):
        axes = result.plot.timeline(names=False)
        drawn(axes)
        spans = sum(path.get_extents().width for c in axes.collections for path in c.get_paths())
        table = result.timeline
        assert spans == pytest.approx((table.end_s - table.start_s).sum())


def test_many_segments_are_drawn_together(gpu, monkeypatch):
    monkeypatch.setattr(lanes, "DRAWN", 10)
    assert "drawn together" in texts(gpu.plot.timeline())


def test_fifos_hold_what_waits_and_the_array_map_is_the_utilisation(pipeline, systolic, gpu):
    drawn(pipeline.plot.fifos())
    from accelsim.architectures.fpga.occupancy import fifos

    assert all(r["peak_words"] <= r["depth_words"] for r in fifos(pipeline.programs[0]))
    used = utilisation(systolic)
    macs = systolic.summary["flops"] / 2
    array = systolic.programs[0].device.array
    rate = systolic.programs[0].device.peak_flop_per_s(systolic.summary["precision"]) / 2
    assert used.shape == (array.rows, array.cols)
    assert used.mean() == pytest.approx(macs / (rate * systolic.summary["latency_s"]))
    assert used.max() <= 1.0
    drawn(systolic.plot.array_map("conv1"))
    with pytest.raises(RequestError, match="no kernel 'conv9z'"):
        systolic.plot.array_map("conv9z")
    with pytest.raises(RequestError, match="a100-sxm is a gpu device and has no FIFOs"):
        gpu.plot.fifos()
    with pytest.raises(RequestError, match="has no array map"):
        gpu.plot.array_map()


def test_infeasible_results_say_so_in_every_chart(impossible):
    for chart in (plots.roofline, plots.layers, plots.timeline, plots.fifos, plots.array_map, plots.queue):
        assert "infeasible (memory)" in texts(chart(impossible))
    assert "infeasible" in texts(plots.runs([impossible]))
    with pytest.raises(RequestError, match="no run"):
        plots.runs([])


def test_batch_curve_with_its_knee_and_its_end():
    curve = ax.batch_curve("resnet18", "t4", batches=[1, 2, 4, 8])
    axes = curve.plot.batch()
    assert f"knee {curve.knee()}" in texts(axes)
    assert axes.get_lines()[0].get_ydata().tolist() == curve.frame["throughput_per_s"].tolist()
    drawn(axes)
    none = ax.batch_curve("llama-3.1-70b", "t4", batches=[1])
    assert "infeasible" in texts(none.plot.batch())
    drawn(ax.batch_curve("resnet18", "t4", batches=[1]).plot.batch())


def test_a_server_over_time(served, impossible):
    axes = served.plot.queue()
    assert axes.get_lines()[0].get_ydata().tolist() == served.series()["in_system"].tolist()
    drawn(axes)
    tail = served.plot.latency()
    x, y = tail.get_lines()[0].get_data()
    assert y[0] == pytest.approx(1 / len(served.latency_s))
    assert x[0] == pytest.approx(served.latency_s.max())
    one = ax.serve(ax.LinearService(0.004), arrivals=ax.Poisson(10), requests=1)
    drawn(one.plot.queue())
    drawn(one.plot.latency())
    overloaded = ax.serve(ax.LinearService(0.004), arrivals=ax.Poisson(9999), requests=500)
    assert "unstable" in texts(overloaded.plot.queue())


# -- files


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_equal_pictures_are_equal_files(ending, study, tmp_path):
    first = plots.save(study.plot.pareto(), tmp_path / f"a.{ending}")
    second = plots.save(study.plot.pareto(), tmp_path / f"b.{ending}")
    assert first.read_bytes() == second.read_bytes()


def test_bad_targets_are_one_line(gpu, impossible, tmp_path):
    with pytest.raises(ConfigError, match="its folder does not exist"):
        plots.draw_runs([gpu], tmp_path / "no" / "out.png")
    with pytest.raises(ConfigError, match="this is a folder"):
        plots.draw_runs([gpu], tmp_path)
    with pytest.raises(RequestError, match=r"no format '.jpeg'"):
        plots.draw_runs([gpu], tmp_path / "out.jpeg")
    assert plots.draw_runs([gpu], tmp_path / "one.png").stat().st_size > 10_000
    assert plots.draw_runs([gpu, impossible], tmp_path / "two.pdf").is_file()
    assert plots.draw_runs([impossible], tmp_path / "three.svg").is_file()


def test_pgf_needs_tex_and_says_so(study, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match=r"needs a TeX installation.*pdf"):
        plots.save(study.plot.pareto(), tmp_path / "out.pgf")


def test_without_matplotlib_the_extra_is_named(study, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    style._classes.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtraError, match=r"accelsim-dse\[plot\]"):
        study.plot.pareto()


def test_given_axes_keep_their_figure_and_pyplot_stays_out(study):
    figure = plots.figure("page")
    axes = figure.add_subplot()
    assert study.plot.pareto(ax=axes) is axes
    assert plots.pareto(study.frame, width="column").figure.get_figwidth() == 3.3
    code = (
        "import os; os.environ.pop('DISPLAY', None); import sys, accelsim as ax; "
        "from accelsim.report import plots; r = ax.simulate('finn-tfc', 'pynq-z2-finn'); "
        "r.plot.timeline()._repr_png_(); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_page_on_pictures_runs(tmp_path, monkeypatch):
    import re
    from pathlib import Path

    text = (Path(ax.__file__).parents[1] / "docs" / "plots.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.S)[:1]), {})
    assert (tmp_path / "roofline.pdf").is_file()
