"""What an architecture's model knows inside: streams of a pipeline, elements of an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.report.plots.style import COLOURS, drawing, empty, remark, short

if TYPE_CHECKING:
    from accelsim.core.outcome import Infeasible
    from accelsim.engine.result import Result

STREAMS = 40
"""Streams that are drawn at the most: the deepest."""


def _program(result: Result, kind: str, what: str) -> Any:
    if not result.programs:
        raise RequestError(f"a loaded result does not hold its {what}", hint="simulate it again")
    program = result.programs[0]
    if program.device.kind != kind:
        raise RequestError(f"{program.device.name} is a {program.device.kind} device and has no {what}")
    return program


def fifos(result: Result | Infeasible, *, ax: Any = None, width: str | float = "column") -> Any:
    """Depth of the FIFO in front of each stage of an FPGA's pipeline, and how far it fills.

    Parameters
    ----------
    result : Result
        Of a streaming pipeline.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    with drawing(ax, width, 3.2) as axes:
        if not result.feasible:
            empty(axes, str(result))
            return axes
        program = _program(result, "fpga", "FIFOs")  # type: ignore[arg-type]
        if program.style != "pipeline":
            raise RequestError(f"{program.device.name} runs its layers in turn and has no FIFOs between them")
        from accelsim.architectures.fpga.occupancy import fifos as table

        rows = table(program)
        if not rows:
            empty(axes, "no stream waits between two stages")
            return axes
        kept = sorted(sorted(rows, key=lambda r: -r["depth_words"])[:STREAMS], key=rows.index)
        places = range(len(kept))[::-1]
        style = {"height": 0.7, "linewidth": 0.5}
        axes.barh(
            places,
            [r["depth_words"] for r in kept],
            facecolor="white",
            edgecolor="0.4",
            label="depth",
            **style,
        )
        axes.barh(
            places,
            [r["peak_words"] for r in kept],
            color=COLOURS[0],
            label="most that waits",
            hatch="////",
            edgecolor="white",
            **style,
        )
        axes.set_yticks(
            places,
            [f"{short(r['writer'], 14)} → {short(r['reader'], 14)}" for r in kept],
            fontsize="xx-small",
        )
        axes.set_xscale("symlog", base=2, linthresh=32)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set_xlim(0, 1.4 * max(r["depth_words"] for r in kept))
        axes.set_xlabel("words")
        axes.legend(loc="upper right", fontsize="x-small")
        lost = len(rows) - len(kept)
        remark(axes, f"{lost} shallower FIFOs not shown" if lost else "")
        return axes


def array_map(
    result: Result | Infeasible, op: str | None = None, *, ax: Any = None, width: str | float = "column"
) -> Any:
    """Utilisation of each element of a systolic array: its multiply-accumulates over those that it had time
    for.

    Parameters
    ----------
    result : Result
        Of a systolic device.
    op : str, optional
        A kernel; the whole run by default.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    with drawing(ax, width) as axes:
        if not result.feasible:
            empty(axes, str(result))
            return axes
        used = utilisation(result, op)  # type: ignore[arg-type]
        picture = axes.imshow(100.0 * used, cmap="cividis", vmin=0.0, aspect="equal", origin="upper")
        axes.figure.colorbar(picture, ax=axes, pad=0.02, shrink=0.9).set_label("utilisation [%]")
        axes.set(xlabel="column", ylabel="row")
        remark(axes, f"{short(op) if op else 'whole run'}: mean {used.mean():.1%}, highest {used.max():.1%}")
        return axes


def utilisation(result: Result, op: str | None = None) -> Any:
    """The numbers behind `array_map`, (rows, columns), 0 to 1; the mean is that of the arrays."""
    from accelsim.architectures.systolic.utilisation import element_macs

    program = _program(result, "systolic", "array map")
    names = [kernel.name for kernel in program.kernels]
    if op is not None and op not in names:
        raise RequestError(f"no kernel '{op}' in this result", hint=did_you_mean(op, names))
    kernels = [i for i, name in enumerate(names) if op in (None, name)]
    taken_s = result.ops["total_s"].iloc[kernels].sum() if op else result.summary["latency_s"]
    peak = program.device.peak_flop_per_s(result.summary["precision"].split(";")[0].strip())
    if not peak > 0:
        from accelsim.core.precision import plan

        peak = program.device.peak_flop_per_s(plan(result.summary["precision"]).activation.name)
    array = program.device.array
    each = peak / 2.0 / (array.rows * array.cols)
    return element_macs(program, kernels) / (each * taken_s) if taken_s > 0 else element_macs(program, []) * 0
