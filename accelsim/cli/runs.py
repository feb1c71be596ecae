"""Commands that simulate: run, scalesim."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.cli.common import Dims, Json, axis, check_precisions, counts, dims, emit
from accelsim.core.errors import RequestError
from accelsim.report import tables

app = typer.Typer()


@app.command()
def run(
    workload: Annotated[
        str, typer.Argument(help="Workload name, .onnx file, HuggingFace config.json or workload .yaml.")
    ],
    hardware: Annotated[
        list[str], typer.Option("--hardware", "-d", help="Device name or file; repeat for several.")
    ],
    batch: Annotated[
        list[str] | None, typer.Option("--batch", "-b", help="Items per run; repeat for several.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="Number format; repeat for several.")
    ] = None,
    stack: Annotated[
        str, typer.Option(help="Software stack: eager, graph, tensorrt, vllm, trtllm or sglang.")
    ] = "graph",
    devices: Annotated[int, typer.Option(help="Devices that work together.")] = 1,
    tensor: Annotated[int | None, typer.Option(help="Tensor-parallel degree.")] = None,
    pipeline: Annotated[int | None, typer.Option(help="Pipeline-parallel degree.")] = None,
    phase: Annotated[str | None, typer.Option(help="forward, prefill or decode.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")] = None,
    fidelity: Annotated[str, typer.Option(help="analytic, tile or event.")] = "tile",
    folding: Annotated[
        Path | None, typer.Option(help="FINN folding JSON or hls4ml configuration of an FPGA pipeline.")
    ] = None,
    code: Annotated[
        str | None, typer.Option(help="How values become spikes: rate, ttfs or sigma_delta.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Time steps of a spiking inference.")] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(help="Spikes per neuron and step, or LAYER=RATE; repeat for several layers."),
    ] = None,
    dim: Dims = None,
    ops: Annotated[bool, typer.Option("--ops", help="Show every kernel.")] = False,
    save: Annotated[Path | None, typer.Option(help="Save the result of a single run as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the run, or the runs, .png or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate a workload on one or more devices, for every batch and precision given."""
    from accelsim.engine.simulate import simulate

    names = axis("hardware", hardware) or []
    precisions = axis("precision", precision)
    formats: list[str | None] = [*precisions] if precisions else [None]
    batches = counts("batch", batch or ["1"])
    check_precisions(names, precisions)
    split = {k: v for k, v in (("tensor", tensor), ("pipeline", pipeline)) if v is not None} or None
    sizes = dims(dim)
    coding = _coding(code, steps, rate)
    outcomes = [
        simulate(
            workload,
            device,
            batch=b,
            precision=p,
            stack=stack,
            devices=devices,
            parallel=split,
            phase=phase,
            context=context,
            fidelity=fidelity,
            folding=folding,
            coding=coding,
            dims=sizes,
        )
        for device in names
        for b in batches
        for p in formats
    ]
    if save is not None:
        if len(outcomes) != 1 or not outcomes[0].feasible:
            raise RequestError("--save needs exactly one feasible run")
        outcomes[0].save(save)  # type: ignore[union-attr]
    if plot is not None:
        from accelsim.report.plots import draw_runs

        draw_runs(outcomes, plot)
    if as_json:
        emit([tables.row(o) for o in outcomes])
    elif len(outcomes) == 1:
        typer.echo(str(outcomes[0]) if not outcomes[0].feasible else repr(outcomes[0]))
    else:
        typer.echo(tables.outcomes([o.summary for o in outcomes]))
    if ops and not as_json:
        for outcome in outcomes:
            if outcome.feasible:
                typer.echo("\n" + tables.kernels(outcome))  # type: ignore[arg-type]


def _coding(code: str | None, steps: int | None, rate: list[str] | None) -> dict[str, Any] | None:
    """What was said about spikes; nothing leaves the device's own coding."""
    rates: float | dict[str, float] | None = None
    if rate:
        layers = dict(_rate(text) for text in rate)
        if "" in layers and len(layers) > 1:
            raise RequestError("give one --rate for all layers, or LAYER=RATE for each")
        rates = layers.get("", layers)
    given = {"code": code, "steps": steps, "rates": rates}
    return {name: value for name, value in given.items() if value is not None} or None


def _rate(text: str) -> tuple[str, float]:
    layer, _, value = text.rpartition("=")
    try:
        return layer, float(value)
    except ValueError:
        raise RequestError(f"--rate '{text}' is not a rate or LAYER=RATE", hint="such as conv1=0.2") from None


@app.command()
def scalesim(
    config: Annotated[Path, typer.Option("-c", "--config", help="SCALE-Sim configuration, .cfg.")],
    topology: Annotated[Path, typer.Option("-t", "--topology", help="SCALE-Sim topology, .csv.")],
    out: Annotated[Path, typer.Option("-p", "--path", help="Folder of the reports.")],
    layout: Annotated[Path | None, typer.Option("-l", "--layout", help="SCALE-Sim layout, .csv.")] = None,
    inputs: Annotated[
        str | None, typer.Option("-i", "--input", help="conv or gemm rows; the header decides by default.")
    ] = None,
) -> None:
    """SCALE-Sim 3.0.0's reports from SCALE-Sim's files, to the cycle."""
    from accelsim.report.scalesim import scalesim_run

    if inputs not in (None, "conv", "gemm"):
        raise RequestError(f"-i '{inputs}' is neither conv nor gemm")
    gemm = None if inputs is None else inputs == "gemm"
    for file in scalesim_run(config, topology, layout, out, gemm=gemm).values():
        typer.echo(str(file))
