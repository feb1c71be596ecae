"""The explorer's widgets and how they lie on the page."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from accelsim.core.catalog import catalog
from accelsim.core.errors import MissingExtraError
from accelsim.hardware.stacks import stacks
from accelsim.report.explorer import views
from accelsim.report.explorer.choice import BATCHES, CONTEXTS, COUNTS, MOST_DEVICES

OWN = "model's own"
PAGES = ("Device", "Serving")
COLUMNS = "repeat(auto-fit, minmax(min(100%, 380px), 1fr))"
DELAYS_US = (0, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
GOALS_MS = (1, 2, 5, 10, 15, 20, 50, 100, 200, 500, 1000)
DEVICE_CHARTS = ("batching", "pareto", "roofline", "breakdown", "timeline")
SERVING_CHARTS = ("latency", "queue")


def widgets() -> Any:
    """The package ``ipywidgets``.

    Raises
    ------
    MissingExtraError
        The extra ``notebook`` is not installed.
    """
    try:
        import ipywidgets
    except ImportError:
        raise MissingExtraError("ipywidgets", "notebook", "the explorer") from None
    return ipywidgets


@lru_cache(maxsize=1)
def chart_class() -> Any:
    """The widget that shows a chart: made when first needed, because it needs an extra."""
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise MissingExtraError("anywidget", "notebook", "the explorer") from None
    here = Path(__file__).parent

    class ChartWidget(anywidget.AnyWidget):
        """SVG on the page; ``picked`` is the mark that was chosen last, ``picks`` how often one was."""

        _esm = (here / "chart.js").read_text()
        _css = (here / "chart.css").read_text()
        svg = traitlets.Unicode("").tag(sync=True)
        picked = traitlets.Unicode("").tag(sync=True)
        picks = traitlets.Int(0).tag(sync=True)

    return ChartWidget


class Controls:
    """Every widget of the explorer.

    Parameters
    ----------
    workload : str
    hardware : tuple of str
        What they begin with.
    """

    def __init__(self, workload: str, hardware: tuple[str, ...]) -> None:
        w = widgets()
        workloads, devices = list(catalog("workloads")), list(catalog("hardware"))
        workloads += [workload] if workload not in workloads else []
        devices = [*hardware, *(n for n in devices if n not in hardware)]
        metrics = [(words, name) for name, (words, _) in views.METRICS.items()]

        # -- what is asked
        self.workload = _control(w.Dropdown, "Model", "Workload of the catalog", workloads, workload)
        self.hardware = _control(
            w.SelectMultiple, "Devices", f"One to {MOST_DEVICES}: Ctrl or Shift adds", devices, hardware
        )
        self.hardware.rows = 6
        self.focus = _control(w.Dropdown, "Look at", "Device whose kernels are shown", hardware)
        self.batch = _control(w.SelectionSlider, "Batch", "Items per run", BATCHES)
        self.precision = _control(w.Dropdown, "Precision", "Weights and activations", [(OWN, "")])
        self.count = _control(
            w.SelectionSlider, "Together", "Devices that share one model (tensor-parallel)", COUNTS
        )
        self.phase = _control(w.Dropdown, "Phase", "Of a language model", [(OWN, "")])
        contexts = [("own", 0), *((str(n), n) for n in CONTEXTS)]
        self.context = _control(w.SelectionSlider, "Context", "Tokens of prompt or cache", contexts)
        self.stack = _control(w.Dropdown, "Stack", "Software on GPUs", stacks(), "graph")
        self.sparsity = _control(w.Dropdown, "Sparsity", "Pattern of the weights", ["dense", "2:4"])

        # -- how it is shown
        self.curve_metric = _control(w.Dropdown, "Over batch", "Metric of the batching curve", metrics)
        self.pareto_metric = _control(
            w.Dropdown, "Pareto", "Metric against latency", metrics, "energy_per_item_j"
        )
        self.page = w.ToggleButtons(
            options=list(PAGES),
            tooltips=["Runs on devices", "Requests at a server"],
            layout=w.Layout(margin="4px 6px"),
            style={"button_width": "110px"},
        )

        # -- traffic
        self.load = _control(
            w.SelectionSlider, "Rate [%]", "Offered rate as a share of the capacity", range(1, 131), 60
        )
        self.max_batch = _control(w.SelectionSlider, "Max batch", "max_batch_size", BATCHES[:9], 32)
        self.delay = _control(w.SelectionSlider, "Delay [us]", "max_queue_delay_microseconds", DELAYS_US, 500)
        self.slo = _control(w.SelectionSlider, "Goal [ms]", "Latency objective", GOALS_MS, 20)

        # -- answers
        self.code = w.Textarea(
            description="Code",
            tooltip="The line that repeats what is shown or picked",
            rows=2,
            layout=w.Layout(width="98%"),
            style={"description_width": "60px"},
        )
        self.head, self.status = w.HTML(), w.HTML()
        make = chart_class()
        self.charts = {name: make() for name in (*DEVICE_CHARTS, *SERVING_CHARTS)}
        self._lay_out(w)

    def _lay_out(self, w: Any) -> None:
        wrap = w.Layout(display="flex", flex_flow="row wrap", align_items="flex-start", overflow="visible")
        grid = w.Layout(display="grid", grid_template_columns=COLUMNS, grid_gap="10px", width="98%")
        asked = w.Box(
            [
                w.VBox([self.workload, self.hardware]),
                w.VBox([self.focus, self.batch, self.precision, self.count]),
                w.VBox([self.phase, self.context, self.stack, self.sparsity]),
            ],
            layout=wrap,
        )
        self.pages = {
            PAGES[0]: w.VBox(
                [
                    w.Box([self.curve_metric, self.pareto_metric], layout=wrap),
                    w.Box([self.charts[name] for name in DEVICE_CHARTS], layout=grid),
                ]
            ),
            PAGES[1]: w.VBox(
                [
                    w.Box([self.load, self.max_batch, self.delay, self.slo], layout=wrap),
                    w.Box([self.charts[name] for name in SERVING_CHARTS], layout=grid),
                ]
            ),
        }
        self.body = w.VBox([self.pages[PAGES[0]]])
        self.root = w.VBox([asked, self.page, self.head, self.code, self.status, self.body])

    @property
    def questions(self) -> tuple[Any, ...]:
        """Controls whose moves ask for new pictures."""
        return (
            self.focus,
            self.batch,
            self.precision,
            self.count,
            self.phase,
            self.context,
            self.stack,
            self.sparsity,
            self.curve_metric,
            self.pareto_metric,
            self.load,
            self.max_batch,
            self.delay,
            self.slo,
        )


def _control(kind: Any, words: str, tip: str, options: Any, value: Any = None) -> Any:
    """A control with its label on the left; the tip is shown and read."""
    more = {} if value is None else {"value": value}
    return kind(
        description=words,
        tooltip=tip,
        options=list(options),
        layout=widgets().Layout(width="290px", margin="2px 4px"),
        style={"description_width": "76px"},
        **more,
    )


def offer(control: Any, options: list[tuple[str, Any]]) -> None:
    """Change the options of a control and keep its value where it is still one."""
    kept = control.value
    values = [value for _, value in options]
    if [o[1] if isinstance(o, tuple) else o for o in control.options] != values:
        control.options = options
    control.value = kept if kept in values else values[0]
