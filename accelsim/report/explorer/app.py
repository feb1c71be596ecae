"""`explorer`: controls on top, pictures below, and the line of code that repeats what one sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from accelsim.core.errors import AccelsimError, RequestError
from accelsim.core.outcome import Infeasible
from accelsim.core.units import si
from accelsim.report.explorer import serving, views
from accelsim.report.explorer.answers import Answers, device_of, facts_of, precisions
from accelsim.report.explorer.choice import MOST_DEVICES, Choice
from accelsim.report.explorer.controls import OWN, Controls, offer
from accelsim.report.explorer.svg import Chart

DEBOUNCE_S = 0.01
"""A move waits so long for the next one, which replaces it."""

SLICE_S = 0.15
"""While curves are filled in, pictures are drawn again this often."""


def explorer(workload: str = "resnet50", hardware: str | Sequence[str] = ("h100-sxm", "l4", "tpu-v4")) -> Any:
    """Controls in a notebook, and pictures that follow them.

    Parameters
    ----------
    workload : str
        Catalog name or file to begin with.
    hardware : str or sequence of str
        Devices to begin with, at most six.

    Returns
    -------
    ipywidgets.VBox
        Shown by JupyterLab, Notebook 7 and Voila when it is the last line of a cell.

    Raises
    ------
    MissingExtraError
        The extra ``notebook`` is not installed.
    RequestError
        There are no devices, or more than there are colours.
    """
    names = (hardware,) if isinstance(hardware, str) else tuple(hardware)
    return Explorer(str(workload), tuple(str(n) for n in names)).root


class Explorer:
    """The explorer's state and its widgets.

    Attributes
    ----------
    root : ipywidgets.VBox
    answers : Answers
    last_update_s : float
        How long the last update took until its pictures were sent [s].
    """

    def __init__(self, workload: str, hardware: tuple[str, ...]) -> None:
        if not hardware or len(hardware) > MOST_DEVICES:
            raise RequestError(f"the explorer takes one to {MOST_DEVICES} devices, got {len(hardware)}")
        for name in hardware:
            device_of(name)
        facts_of(workload)
        self.answers, self.served = Answers(), serving.Served()
        self.last_update_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._quiet = False
        self.controls = Controls(workload, hardware)
        self.root = self.controls.root
        self.root.explorer = self
        self._adapt()
        self._follow()
        self.update()

    def _follow(self) -> None:
        c = self.controls
        for control in c.questions:
            control.observe(self._moved, "value")
        for control in (c.workload, c.hardware):
            control.observe(self._other_model, "value")
        c.page.observe(self._turned, "value")
        for chart in c.charts.values():
            chart.observe(self._picked, "picks")

    # -- reactions

    def _moved(self, _change: Any) -> None:
        if not self._quiet:
            self.update()

    def _other_model(self, _change: Any) -> None:
        if self.controls.hardware.value:
            self._adapt()
            self.update()

    def _turned(self, _change: Any) -> None:
        self.controls.body.children = (self.controls.pages[self.controls.page.value],)
        self.update()

    def _picked(self, change: Any) -> None:
        kind, _, rest = change["owner"].picked.partition(":")
        choice = self.choice
        if kind == "op":
            self.controls.code.value = choice.explanation(choice.focus, rest)
        else:
            device, _, batch = rest.rpartition(":")
            self.controls.code.value = choice.at(int(batch)).code(device)

    def _adapt(self) -> None:
        """Choices that the model and the devices leave."""
        c = self.controls
        held = facts_of(c.workload.value)
        devices = c.hardware.value[:MOST_DEVICES]
        self._quiet = True
        try:
            offer(c.focus, [(d, d) for d in devices])
            offer(c.precision, [(OWN, ""), *((p, p) for p in precisions(devices))])
            offer(c.phase, [(OWN, ""), *((p, p) for p in held.phases)])
            c.phase.disabled = held.phases == ("forward",)
            c.context.disabled = not held.has_context
            if c.phase.disabled:
                c.phase.value = ""
            if c.context.disabled:
                c.context.value = 0
            c.stack.disabled = all(device_of(d).kind != "gpu" for d in devices)
        finally:
            self._quiet = False

    @property
    def choice(self) -> Choice:
        """What the controls ask."""
        c = self.controls
        return Choice(
            workload=c.workload.value,
            hardware=tuple(c.hardware.value[:MOST_DEVICES]),
            focus=c.focus.value,
            batch=c.batch.value,
            precision=c.precision.value or None,
            sparsity=c.sparsity.value,
            stack=c.stack.value,
            devices=c.count.value,
            phase=c.phase.value or None,
            context=c.context.value or None,
        )

    @property
    def traffic(self) -> serving.Traffic:
        """What the controls of the serving page ask."""
        c = self.controls
        return serving.Traffic(float(c.load.value), c.max_batch.value, c.delay.value, float(c.slo.value))

    # -- updates

    def update(self) -> None:
        """Draw what the controls ask: at once without an event loop, else after the moves have settled."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._draw_all()
            return
        self._task = loop.create_task(self._later())

    async def _later(self) -> None:
        await asyncio.sleep(DEBOUNCE_S)
        for _ in self._steps():
            # Messages of new moves get their turn between steps, and cancel this task.
            await asyncio.sleep(0)

    def _draw_all(self) -> None:
        for _ in self._steps():
            pass

    def _steps(self) -> Any:
        """Draw the device in focus, then fill in the others and the curves."""
        start = time.perf_counter()
        choice = self.choice
        if self.controls.page.value == "Serving":
            self._draw_serving(choice)
            self.last_update_s = time.perf_counter() - start
            return
        self._draw_focus(choice)
        self._draw_devices(choice)
        self.last_update_s = drawn = time.perf_counter()
        self.last_update_s -= start
        fresh = False
        for at, device in self.answers.missing(choice):
            self.answers.row(at, device)
            fresh = True
            if time.perf_counter() - drawn > SLICE_S:
                self._draw_devices(choice, f"computing {device}, batch {at.batch} …")
                drawn, fresh = time.perf_counter(), False
            yield
        if fresh or self.controls.status.value:
            self._draw_devices(choice)

    def _show(self, name: str, make: Callable[[], Chart]) -> None:
        svg = make().svg()
        if svg != self.controls.charts[name].svg:
            self.controls.charts[name].svg = svg

    def _draw_focus(self, choice: Choice) -> None:
        self.answers.run(choice, choice.focus)
        self.controls.code.value = choice.code(choice.focus)
        self._show("breakdown", lambda: views.breakdown(self.answers, choice))
        self._show("timeline", lambda: views.timeline(self.answers, choice))

    def _draw_devices(self, choice: Choice, status: str = "") -> None:
        more = len(self.controls.hardware.value) - MOST_DEVICES
        left_out = f"the first {MOST_DEVICES} devices are shown, {more} are left out" if more > 0 else ""
        self.controls.status.value = escape("; ".join(t for t in (left_out, status) if t))
        self.controls.head.value = _table(self.answers, choice)
        self._show("roofline", lambda: views.roofline(self.answers, choice))
        self._show("batching", lambda: views.batching(self.answers, choice, self.controls.curve_metric.value))
        self._show("pareto", lambda: views.pareto(self.answers, choice, self.controls.pareto_metric.value))

    def _draw_serving(self, choice: Choice) -> None:
        self.controls.status.value = ""
        if serving.generates(choice):
            self._say("this page serves one run per request; a model that generates tokens takes many")
            return
        try:
            result = self.served.run(choice, self.traffic)
            line = self.served.code(choice, self.traffic)
        except AccelsimError as error:
            self._say(str(error))
            return
        if isinstance(result, Infeasible):
            self._say(str(result))
            return
        self.controls.code.value = line
        rows = "".join(
            f"<tr><th style='text-align:left;padding-right:12px'>{escape(a)}</th><td>{escape(b)}</td></tr>"
            for a, b in serving.headline(result)
        )
        self.controls.head.value = f"<table style='line-height:1.45'>{rows}</table>"
        self._show("latency", lambda: serving.distribution(result, self.traffic.slo_ms / 1e3))
        self._show("queue", lambda: serving.queue(result))

    def _say(self, why: str) -> None:
        self.controls.head.value = ""
        for name, title in (("latency", "Latency of the requests"), ("queue", "Requests in the server")):
            chart = Chart(title)
            chart.say(why)
            self.controls.charts[name].svg = chart.svg()


def _table(answers: Answers, choice: Choice) -> str:
    """One row per device at the batch asked, as HTML."""
    cells = "padding:1px 14px 1px 0;text-align:left;vertical-align:top"
    heads = ("device", "latency (error band)", "throughput", "energy", "cost", "bound by")
    rows = []
    for device in choice.hardware:
        s = answers.known(choice, device)
        mark = f"<span style='color:{views.colour_of(choice, device)}' aria-hidden='true'>■</span>"
        first = f"<td style='{cells};white-space:nowrap'>{mark} {escape(device)}</td>"
        if s is None:
            rows.append(f"<tr>{first}<td style='{cells}' colspan='5'>…</td></tr>")
        elif s["status"] != "ok":
            why = f"infeasible ({s['reason']}): needs {s['need']}, has {s['have']}; {s['hint']}"
            rows.append(f"<tr>{first}<td style='{cells}' colspan='5'>{escape(why)}</td></tr>")
        else:
            rows.append(
                f"<tr>{first}{''.join(f'<td style={cells!r}>{escape(t)}</td>' for t in _cells(s))}</tr>"
            )
    head = "".join(f"<th style='{cells}' scope='col'>{escape(h)}</th>" for h in heads)
    return f"<table style='line-height:1.35'><tr>{head}</tr>{''.join(rows)}</table>"


def _cells(s: dict[str, Any]) -> list[str]:
    energy, usd, item = s["energy_per_item_j"], s["usd_per_million_items"], s["item"]
    band = f"{si(s['latency_low_s'], 's', 3)} to {si(s['latency_high_s'], 's', 3)}"
    return [
        f"{si(s['latency_s'], 's', 3)} ({band})",
        f"{s['throughput_per_s']:.4g} {item}s/s",
        f"{si(energy, 'J', 3)}/{item}" if energy == energy else "unknown",
        f"{usd:.3g} USD/M {item}s" if usd == usd else "unknown",
        s["bound"],
    ]
