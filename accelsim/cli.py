"""The command line: tables for people, ``--json`` for programs, exit code 2 and one line for bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.core.errors import AccelsimError, ConfigError, RequestError
from accelsim.core.frames import records
from accelsim.report import tables

app = typer.Typer(
    name="accelsim",
    help="Simulate AI inference on GPUs, FPGAs and systolic arrays.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
hw = typer.Typer(help="Devices: list, show, diff, new, check.", no_args_is_help=True)
wl = typer.Typer(help="Workloads: list, show, import.", no_args_is_help=True)
app.add_typer(hw, name="hw")
app.add_typer(wl, name="wl")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Dims = Annotated[list[str] | None, typer.Option("--dim", help="Size of a named ONNX dimension, NAME=SIZE.")]


def main() -> None:
    """Entry point of ``accelsim``."""
    try:
        app(standalone_mode=False)
    except AccelsimError as error:
        _fail(str(error))
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own usage errors
            _fail(error.format_message())
        raise


def _fail(message: str, code: int = 2) -> None:
    typer.echo(f"accelsim: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _emit(document: Any) -> None:
    from accelsim.engine.result import plain

    typer.echo(json.dumps(plain(document), allow_nan=False))


def _dims(pairs: list[str] | None) -> dict[str, int]:
    result = {}
    for pair in pairs or []:
        name, _, size = pair.partition("=")
        if not name or not size.isdigit() or int(size) < 1:
            raise RequestError(f"'{pair}' is not NAME=SIZE with a positive size")
        result[name] = int(size)
    return result


def _axis(name: str, values: list[str] | None) -> list[str] | None:
    """Repeated options and comma-separated lists are the same."""
    if values is None:
        return None
    # A plan by role ("weight=int4,activation=fp16") keeps its commas.
    split = [part for value in values for part in ([value] if "=" in value else value.split(","))]
    if any(not part for part in split):
        raise RequestError(f"an empty value was given for --{name}")
    return split


def _counts(name: str, values: list[str]) -> list[int]:
    counts = []
    for text in _axis(name, values) or []:
        try:
            counts.append(int(text))
        except ValueError:
            raise RequestError(f"--{name} '{text}' is not a whole number") from None
    return counts


def _check_precisions(hardware: list[str], precisions: list[str] | None) -> None:
    """A precision that none of the devices has is a mistake in the request, not a result."""
    from accelsim.architectures import architecture_of
    from accelsim.core.precision import plan
    from accelsim.hardware.spec import load_hardware

    devices = [load_hardware(name) for name in hardware]
    for request in precisions or []:
        activation = plan(request).activation.name
        if not any(architecture_of(d.kind).supports(d, activation) for d in devices):
            have = {d.name: ", ".join(architecture_of(d.kind).precisions(d)) for d in devices}
            raise RequestError(
                f"no device given computes in {activation}",
                hint="; ".join(f"{name} has {text}" for name, text in have.items()),
            )


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
    stack: Annotated[str, typer.Option(help="Software stack: eager, graph or tensorrt.")] = "graph",
    devices: Annotated[int, typer.Option(help="Devices that work together.")] = 1,
    tensor: Annotated[int | None, typer.Option(help="Tensor-parallel degree.")] = None,
    pipeline: Annotated[int | None, typer.Option(help="Pipeline-parallel degree.")] = None,
    phase: Annotated[str | None, typer.Option(help="forward, prefill or decode.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")] = None,
    fidelity: Annotated[str, typer.Option(help="analytic, tile or event.")] = "tile",
    folding: Annotated[
        Path | None, typer.Option(help="FINN folding JSON or hls4ml configuration of an FPGA pipeline.")
    ] = None,
    dim: Dims = None,
    ops: Annotated[bool, typer.Option("--ops", help="Show every kernel.")] = False,
    save: Annotated[Path | None, typer.Option(help="Save the result of a single run as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate a workload on one or more devices, for every batch and precision given."""
    from accelsim.engine.simulate import simulate

    names = _axis("hardware", hardware) or []
    precisions = _axis("precision", precision)
    formats: list[str | None] = [*precisions] if precisions else [None]
    batches = _counts("batch", batch or ["1"])
    _check_precisions(names, precisions)
    split = {k: v for k, v in (("tensor", tensor), ("pipeline", pipeline)) if v is not None} or None
    dims = _dims(dim)
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
            dims=dims,
        )
        for device in names
        for b in batches
        for p in formats
    ]
    if save is not None:
        if len(outcomes) != 1 or not outcomes[0].feasible:
            raise RequestError("--save needs exactly one feasible run")
        outcomes[0].save(save)  # type: ignore[union-attr]
    if as_json:
        _emit([tables.row(o) for o in outcomes])
    elif len(outcomes) == 1:
        typer.echo(str(outcomes[0]) if not outcomes[0].feasible else repr(outcomes[0]))
    else:
        typer.echo(tables.outcomes([o.summary for o in outcomes]))
    if ops and not as_json:
        for outcome in outcomes:
            if outcome.feasible:
                typer.echo("\n" + tables.kernels(outcome))  # type: ignore[arg-type]


@app.command()
def sweep(
    workload: Annotated[list[str], typer.Option("--workload", "-w", help="Workload; repeat for several.")],
    hardware: Annotated[list[str], typer.Option("--hardware", "-d", help="Device; repeat for several.")],
    batch: Annotated[
        list[str] | None, typer.Option("--batch", "-b", help="Batch; repeat for several.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="Format; repeat for several.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate every combination of the lists given."""
    from accelsim.core.files import write_whole
    from accelsim.explore.sweep import sweep as run_sweep

    names = _axis("hardware", hardware) or []
    precisions = _axis("precision", precision)
    _check_precisions(names, precisions)
    if csv is not None and csv.is_dir():
        raise ConfigError("this is a folder, expected a file", str(csv))
    study = run_sweep(
        _axis("workload", workload),
        names,
        batch=_counts("batch", batch or ["1"]),
        precision=precisions or [None],
        jobs=jobs,
    )
    if csv is not None:
        write_whole(csv, study.frame.to_csv(index=False))
    if as_json:
        _emit([tables.completed(row) for row in study.rows])
    else:
        typer.echo(tables.outcomes(list(study.rows)))


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


@hw.command("list")
def hw_list(as_json: Json = False) -> None:
    """All devices."""
    rows = tables.devices()
    if as_json:
        _emit(rows)
    else:
        typer.echo(tables.text(rows))


@hw.command("show")
def hw_show(
    name: str,
    sources: Annotated[bool, typer.Option("--sources", help="Show where each number comes from.")] = False,
    as_json: Json = False,
) -> None:
    """The numbers of a device, with their status."""
    from accelsim.hardware.spec import load_hardware
    from accelsim.hardware.spec import sources as table_of

    rows = records(table_of(load_hardware(name)))
    if as_json:
        _emit(rows)
    else:
        typer.echo(
            tables.text(
                rows if sources else [{k: r[k] for k in ("parameter", "value", "status")} for r in rows]
            )
        )


@hw.command("diff")
def hw_diff(first: str, second: str, as_json: Json = False) -> None:
    """The parameters in which two devices differ."""
    from accelsim.hardware.spec import load_hardware

    rows = records(load_hardware(first).diff(second))
    if as_json:
        _emit(rows)
    else:
        typer.echo(tables.text(rows) if rows else "no difference")


@hw.command("new")
def hw_new(
    path: Path, like: Annotated[str, typer.Option(help="Device to start from.")], as_json: Json = False
) -> None:
    """Write a file for your own device, starting from one that exists."""
    from accelsim.core.files import write_whole
    from accelsim.hardware.template import template

    if path.suffix != ".yaml":
        raise ConfigError("a device's file ends in .yaml", str(path))
    if path.exists():
        raise ConfigError("the file exists already", str(path))
    write_whole(path, template(like))
    if as_json:
        _emit({"file": str(path), "like": like})
    else:
        typer.echo(f"wrote {path}; edit it, then: accelsim hw check {path}")


@hw.command("check")
def hw_check(path: str, as_json: Json = False) -> None:
    """Check a device's file."""
    from accelsim.hardware.spec import load_hardware

    device = load_hardware(path)
    report = {
        "file": path,
        "kind": device.kind,
        "numbers": len(device.numbers),
        "assumed": len(device.assumed),
        "assumed_parameters": device.assumed,
    }
    if as_json:
        _emit(report)
    else:
        typer.echo(
            f"{path}: a {device.kind} with {report['numbers']} numbers, {report['assumed']} of them assumed"
        )


@wl.command("list")
def wl_list(as_json: Json = False) -> None:
    """All workloads."""
    rows = tables.workloads()
    if as_json:
        _emit(rows)
    else:
        typer.echo(tables.text(rows))


@wl.command("show")
def wl_show(
    name: str,
    phase: Annotated[str | None, typer.Option(help="forward, prefill or decode.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")] = None,
    as_json: Json = False,
) -> None:
    """What a workload computes."""
    _show(name, None, phase, context, False, as_json)


@wl.command("import")
def wl_import(
    path: str,
    dim: Dims = None,
    phase: Annotated[str | None, typer.Option(help="forward, prefill or decode.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse operators that are only approximated.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read a model file and say how well it is covered."""
    _show(path, dim, phase, context, strict, as_json)


def _show(
    source: str, dim: list[str] | None, phase: str | None, context: int | None, strict: bool, as_json: bool
) -> None:
    from accelsim.workload.load import load_workload

    graph = load_workload(source, dims=_dims(dim), phase=phase, context=context, strict=strict)
    if as_json:
        _emit(tables.workload(graph))
    else:
        typer.echo(f"{graph!r}\n{graph.coverage()!r}")


@app.command()
def validate(
    parts: Annotated[
        list[str] | None, typer.Argument(help="gpu, systolic, fpga; all when none is named.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the report here (Markdown).")] = None,
    deepbench: Annotated[Path | None, typer.Option(help="A checkout of DeepBench, or its sheet.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Folder for a CSV of every scored row.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for pictures of those rows (PDF).")] = None,
    as_json: Json = False,
) -> None:
    """Compare predictions with measurements that can be read here, on held-out rows."""
    from accelsim.validate.report import PARTS, collect, write

    if plots is not None and rows is None:
        raise RequestError("--plots draws the rows that --rows writes", hint="give both")
    found = {part: list(collect(part, deepbench, rows)) for part in parts or PARTS}
    if plots is not None and rows is not None:
        from accelsim.report.residuals import draw

        draw(rows, plots)
    if out is not None:
        write(out, found)
    if as_json:
        _emit({part: {t.title: records(t.frame) for t in held} for part, held in found.items()})
    elif out is None:
        typer.echo("\n".join(t.markdown() for held in found.values() for t in held))
    else:
        typer.echo(f"wrote {out}")


@app.command()
def calibrate(
    device: Annotated[str, typer.Argument(help="GPU: name or file.")],
    measurements: Annotated[Path, typer.Argument(help="Table of measured operators, .csv or .parquet.")],
    out: Annotated[
        Path | None, typer.Option(help="Hardware file to write; NAME-calibrated.yaml by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses rows where there are more than a fit needs.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit a GPU's constants to measurements, and find its error band."""
    from accelsim.calibration.fit import calibrate as fit
    from accelsim.core.catalog import catalog

    if out is None and device in catalog("hardware").files():
        out = Path(f"{device}-calibrated.yaml")
    found = fit(device, measurements, out=out, seed=seed)
    if as_json:
        _emit(found.to_dict())
    else:
        typer.echo(repr(found))


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this installation can do."""
    rows = tables.installation()
    if as_json:
        _emit(rows)
    else:
        typer.echo(tables.text(rows))


if __name__ == "__main__":
    main()
