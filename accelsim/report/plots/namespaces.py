"""``result.plot.roofline()`` and its like: the charts that go with an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelsim.report.plots.batch import batch_curve, batch_curves, heatmap
from accelsim.report.plots.breakdown import layers
from accelsim.report.plots.coordinates import parallel
from accelsim.report.plots.fronts import pareto
from accelsim.report.plots.influence import effects
from accelsim.report.plots.inside import array_map, fifos
from accelsim.report.plots.lanes import timeline
from accelsim.report.plots.roofs import roofline
from accelsim.report.plots.serving import latency, queue
from accelsim.report.plots.summary import overview

if TYPE_CHECKING:
    from accelsim.engine.result import Result
    from accelsim.explore.batching import BatchCurve
    from accelsim.explore.study import Study
    from accelsim.serving.outcome import ServeResult


class ResultPlots:
    """Charts of a result; each takes the arguments of the function of its name."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def roofline(self, **settings: Any) -> Any:
        return roofline(self._result, **settings)

    def layers(self, **settings: Any) -> Any:
        return layers(self._result, **settings)

    def timeline(self, **settings: Any) -> Any:
        return timeline(self._result, **settings)

    def fifos(self, **settings: Any) -> Any:
        return fifos(self._result, **settings)

    def array_map(self, op: str | None = None, **settings: Any) -> Any:
        return array_map(self._result, op, **settings)

    def overview(self) -> Any:
        return overview(self._result)


class StudyPlots:
    """Charts of a study; each takes the arguments of the function of its name."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def _points(self, where: str | None) -> Any:
        """All points; with a condition, those that meet it."""
        return self._study.frame if where is None else self._study.where(where)

    def pareto(
        self, x: str = "latency_s", y: str = "energy_per_item_j", *, where: str | None = None, **settings: Any
    ) -> Any:
        return pareto(self._points(where), x, y, **settings)

    def heatmap(self, *, where: str | None = None, **settings: Any) -> Any:
        return heatmap(self._points(where), **settings)

    def parallel(
        self, names: Sequence[str] | None = None, *, where: str | None = None, **settings: Any
    ) -> Any:
        frame = self._points(where)
        if names is None:
            wanted = (*self._study.axes, "latency_s", "energy_per_item_j")
            names = [n for n in dict.fromkeys(wanted) if n in frame.columns and frame[n].notna().any()]
        return parallel(frame, names, **settings)

    def batch(self, *, where: str | None = None, **settings: Any) -> Any:
        return batch_curves(self._points(where), **settings)

    def effects(self, metric: str = "latency_s", *, where: str | None = None, **settings: Any) -> Any:
        from accelsim.explore.influence import main_effects

        return effects(main_effects(self._study, metric, where), **settings)


class CurvePlots:
    """Charts of a batch curve."""

    def __init__(self, curve: BatchCurve) -> None:
        self._curve = curve

    def batch(self, **settings: Any) -> Any:
        return batch_curve(self._curve, **settings)


class ServePlots:
    """Charts of a serving run."""

    def __init__(self, served: ServeResult) -> None:
        self._served = served

    def queue(self, **settings: Any) -> Any:
        return queue(self._served, **settings)

    def latency(self, **settings: Any) -> Any:
        return latency(self._served, **settings)
