"""Commands on techniques: batch, prune, distill, cascade, speculate, sensitivity, mixed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.cli.common import Dims, Json, axis, counts, dims, emit
from accelsim.core.frames import records
from accelsim.core.outcome import Infeasible
from accelsim.report import tables

app = typer.Typer()

Device = Annotated[str, typer.Option("--hardware", "-d", help="Device name or file.")]
Items = Annotated[int, typer.Option("--batch", "-b", help="Items per run.")]
Format = Annotated[str | None, typer.Option("--precision", "-p", help="Number format.")]
Phase = Annotated[str | None, typer.Option(help="forward, prefill or decode.")]
Context = Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")]
Model = Annotated[str, typer.Argument(help="Workload name or file.")]
Student = Annotated[str, typer.Argument(help="Student; or a shipped pair, such as distilbert/bert-base.")]
Teacher = Annotated[str | None, typer.Argument(help="Teacher.")]
Acceptance = Annotated[float, typer.Option(help="Share that the student settles, 0 to 1.")]


@app.command()
def batch(
    model: Model,
    hardware: Device,
    batches: Annotated[list[str] | None, typer.Option("--batch", "-b", help="Batches.")] = None,
    precision: Format = None,
    phase: Phase = None,
    context: Context = None,
    as_json: Json = False,
) -> None:
    """Latency, throughput, memory and energy over the batch, and the knee."""
    from accelsim.explore.batching import batch_curve

    chosen = {"batches": counts("batch", batches)} if batches else {}
    curve = batch_curve(model, hardware, precision=precision, phase=phase, context=context, **chosen)
    shown = ("batch", "latency_s", "throughput_per_s", "memory_bytes", "energy_per_item_j", "bound", "reason")
    rows = [{name: row.get(name, "") for name in shown} for row in curve.rows]
    told = (
        f"knee: batch {curve.knee()} has 90 % of the highest throughput; gain over one item {curve.gain:.3g}"
    )
    _tell(
        rows, told, curve.notes, {"rows": list(curve.rows), "knee": curve.knee(), "gain": curve.gain}, as_json
    )


@app.command()
def prune(
    model: Model,
    hardware: Device,
    method: Annotated[
        str, typer.Option(help="unstructured, 2:4 (or another N:M), channel, heads, ffn, layers.")
    ] = "channel",
    amount: Annotated[float, typer.Option(help="Share to remove, 0 to 1.")] = 0.5,
    weights: Annotated[Path | None, typer.Option(help="Real weights, .onnx or .safetensors.")] = None,
    items: Items = 1,
    precision: Format = None,
    phase: Phase = None,
    context: Context = None,
    as_json: Json = False,
) -> None:
    """A workload before and after pruning on a device."""
    from accelsim.engine.simulate import simulate
    from accelsim.techniques.pruning import prune as pruned

    settings: dict[str, Any] = {"batch": items, "precision": precision, "context": context}
    graph = pruned(model, method, amount, weights=weights, phase=phase, context=context)
    dense = simulate(model, hardware, phase=phase, **settings)
    sparse = simulate(graph, hardware, **settings)
    if as_json:
        emit([tables.row(dense), tables.row(sparse)])
        return
    typer.echo(tables.outcomes([dense.summary, sparse.summary]))
    for note in getattr(sparse, "notes", ()):
        typer.echo(f"note: {note}")


@app.command()
def distill(
    student: Student,
    teacher: Teacher = None,
    *,
    hardware: Device,
    items: Items = 1,
    precision: Format = None,
    phase: Phase = None,
    context: Context = None,
    as_json: Json = False,
) -> None:
    """A student beside its teacher: speed, memory, energy and score."""
    from accelsim.explore.pairs import distill as distilled

    found = distilled(
        student, teacher, hardware, batch=items, precision=precision, phase=phase, context=context
    )
    _tell(_column(found.summary), "", found.notes, found.summary, as_json)


@app.command()
def cascade(
    student: Student,
    teacher: Teacher = None,
    *,
    hardware: Device,
    acceptance: Acceptance,
    items: Items = 1,
    precision: Format = None,
    as_json: Json = False,
) -> None:
    """The student first, the teacher for what it is not sure of."""
    from accelsim.explore.pairs import cascade as cascaded

    found = cascaded(student, teacher, hardware, acceptance=acceptance, batch=items, precision=precision)
    if isinstance(found, Infeasible):
        _infeasible(found, as_json)
        return
    told = f"pays above an acceptance of {found.break_even:.3g}"
    document = {**found.summary, "acceptance": found.acceptance, "break_even": found.break_even}
    _tell(_column(found.summary), told, found.notes, document, as_json)


@app.command()
def speculate(
    student: Student,
    teacher: Teacher = None,
    *,
    hardware: Device,
    acceptance: Acceptance,
    items: Items = 1,
    precision: Format = None,
    context: Context = None,
    as_json: Json = False,
) -> None:
    """Speculative decoding: time per token over the length of the draft."""
    from accelsim.explore.pairs import speculative

    found = speculative(
        student, teacher, hardware, acceptance=acceptance, batch=items, precision=precision, context=context
    )
    if isinstance(found, Infeasible):
        _infeasible(found, as_json)
        return
    rows = [dict(row) for row in found.rows]
    told = f"best: {found.best_draft} drafted tokens, {found.summary['speedup']:.3g} times as fast"
    _tell(rows, told, found.notes, {"rows": rows, "best_draft": found.best_draft}, as_json)


@app.command()
def sensitivity(
    model: Annotated[Path, typer.Argument(help="Model with its weights, .onnx or .safetensors.")],
    precision: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="Format; repeat for several.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Random inputs.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
    dim: Dims = None,
    as_json: Json = False,
) -> None:
    """What a format does to each layer of a real network."""
    from accelsim.techniques.sensitivity import sensitivity as measured

    formats = axis("precision", precision) or ["int8"]
    found = measured(model, formats, samples=samples, seed=seed, dims=dims(dim) or None)
    rows = records(found.frame)
    _tell(rows, repr(found), found.notes, {"rows": rows, "provenance": found.provenance}, as_json)


@app.command()
def mixed(
    model: Annotated[Path, typer.Argument(help="Model with its weights, .onnx.")],
    hardware: Device,
    budget: Annotated[float | None, typer.Option(help="Largest relative error of the output.")] = None,
    limit: Annotated[float | None, typer.Option(help="Largest latency [s] or energy [J] instead.")] = None,
    objective: Annotated[str, typer.Option(help="latency or energy.")] = "latency",
    items: Items = 1,
    samples: Annotated[int, typer.Option(help="Random inputs.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
    dim: Dims = None,
    as_json: Json = False,
) -> None:
    """A format per layer that meets an error budget at the least latency or energy."""
    from accelsim.explore.mixed import mixed_precision

    found = mixed_precision(
        model,
        hardware,
        budget=budget,
        limit=limit,
        objective=objective,
        samples=samples,
        seed=seed,
        dims=dims(dim) or None,
        batch=items,
    )
    if isinstance(found, Infeasible):
        _infeasible(found, as_json)
        return
    rows = records(found.compared)
    document = {"plan": found.plan.name, "choice": found.choice, "error": found.error, "plans": rows}
    _tell(rows, repr(found), found.notes, document, as_json)


def _column(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """A single row as a table that runs down."""
    return [{"name": name, "value": _text(value)} for name, value in summary.items()]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _infeasible(outcome: Any, as_json: bool) -> None:
    if as_json:
        emit(tables.row(outcome))
    else:
        typer.echo(str(outcome))


def _tell(rows: list[dict[str, Any]], told: str, notes: Any, document: Any, as_json: bool) -> None:
    if as_json:
        emit(document)
        return
    typer.echo(tables.text(rows))
    for line in (told, *(f"note: {note}" for note in notes)):
        if line:
            typer.echo(line)
