"""Commands on what surrounds an inference: explain, train, compose, confidential, federated."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from accelsim.cli.common import Json, axis, emit
from accelsim.core.errors import RequestError
from accelsim.core.frames import records
from accelsim.core.outcome import Infeasible
from accelsim.report import tables

app = typer.Typer()

Model = Annotated[str, typer.Argument(help="Workload name or file.")]
Device = Annotated[str, typer.Option("--hardware", "-d", help="Device name or file.")]
Items = Annotated[int, typer.Option("--batch", "-b", help="Items per run.")]
Format = Annotated[str | None, typer.Option("--precision", "-p", help="Number format.")]


@app.command()
def explain(
    model: Model,
    hardware: Device,
    method: Annotated[str, typer.Option(help="Such as saliency or integrated_gradients.")] = (
        "integrated_gradients"
    ),
    steps: Annotated[int | None, typer.Option(help="Steps or samples; the method's by default.")] = None,
    items: Items = 1,
    internal_batch: Annotated[int | None, typer.Option(help="Passes that run together.")] = None,
    precision: Format = None,
    as_json: Json = False,
) -> None:
    """What explained predictions take: latency, energy, cost, and what batching saves."""
    from accelsim.explore.explain import explain as explained

    found = explained(
        model,
        hardware,
        method,
        steps=steps,
        batch=items,
        internal_batch=internal_batch,
        precision=precision,
    )
    if isinstance(found, Infeasible):
        text = str(found)
    else:
        text = "\n".join([tables.running_down(found.summary), *(f"note: {n}" for n in found.notes)])
    if as_json:
        emit(found.summary)
    else:
        typer.echo(text)


@app.command()
def train(
    model: Model,
    hardware: Device,
    items: Items = 1,
    optimiser: Annotated[str, typer.Option(help="sgd, momentum or adam.")] = "adam",
    precision: Format = None,
    states: Annotated[
        str | None, typer.Option(help="Format of master weights and optimiser states, such as fp32.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A training step: forward and backward pass, update of the weights."""
    from accelsim.explore.training import train as trained

    found = trained(model, hardware, batch=items, optimiser=optimiser, precision=precision, states=states)
    if as_json:
        emit(tables.row(found))
    else:
        typer.echo(str(found) if isinstance(found, Infeasible) else repr(found))


@app.command()
def compose(
    model: Model,
    hardware: Device,
    screen: Annotated[
        list[str] | None,
        typer.Option(
            help="A detector before the model, or 'checks' of the input's range; repeat for several."
        ),
    ] = None,
    smoothing: Annotated[int | None, typer.Option(help="Noisy passes that vote.")] = None,
    vote: Annotated[
        list[str] | None, typer.Option(help="A further model that votes; repeat for several.")
    ] = None,
    noise: Annotated[bool, typer.Option("--output-noise", help="Noise on each output.")] = False,
    confidential: Annotated[bool, typer.Option("--confidential", help="Transfers are encrypted.")] = False,
    encrypted: Annotated[str | None, typer.Option(help="homomorphic or mpc.")] = None,
    explain_with: Annotated[
        str | None, typer.Option("--explain", help="Explain every answer, such as with saliency.")
    ] = None,
    items: Items = 1,
    precision: Format = None,
    phase: Annotated[str | None, typer.Option(help="forward, prefill or decode.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")] = None,
    as_json: Json = False,
) -> None:
    """One inference with what security, privacy and explanations add, part by part."""
    from accelsim.explore.compose import Measure
    from accelsim.explore.compose import compose as composed
    from accelsim.techniques import security as s

    held: list[Measure] = [s.Screen(None if name == "checks" else name) for name in screen or []]
    if smoothing is not None:
        held.append(s.Smoothing(smoothing))
    if vote:
        held.append(s.Vote(axis("vote", vote) or []))
    if noise:
        held.append(s.OutputNoise())
    if encrypted is not None:
        held.append(s.Encrypted(encrypted))
    if confidential:
        held.append(s.Confidential())
    found = composed(
        model,
        hardware,
        held,
        explain_with=explain_with,
        batch=items,
        precision=precision,
        phase=phase,
        context=context,
    )
    if as_json:
        emit(found.summary)
    else:
        typer.echo(str(found))


@app.command()
def confidential(
    model: Model,
    hardware: Device,
    prompt: Annotated[int, typer.Option(help="Tokens in.")] = 512,
    output: Annotated[int, typer.Option(help="Tokens out.")] = 128,
    items: Items = 1,
    stack: Annotated[str, typer.Option(help="vllm, trtllm, sglang, graph or eager.")] = "vllm",
    as_json: Json = False,
) -> None:
    """What encrypted transfers add to a query of a language model."""
    from accelsim.engine.confidential import confidential_query

    found = confidential_query(model, hardware, prompt=prompt, output=output, batch=items, stack=stack)
    if as_json:
        emit(found)
    else:
        typer.echo(tables.running_down(found))


@app.command()
def federated(
    model: Model,
    hardware: Annotated[
        list[str], typer.Option("--hardware", "-d", help="DEVICE=COUNT; repeat for several kinds.")
    ],
    items: Items = 1,
    steps: Annotated[int, typer.Option(help="Local steps of a round.")] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 1,
    select: Annotated[int | None, typer.Option(help="Devices that a round asks; all by default.")] = None,
    accept: Annotated[int | None, typer.Option(help="Updates that close a round; all by default.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="A round ends at the latest then [s].")] = None,
    uplink: Annotated[str, typer.Option(help="Of each device, such as '10 Mbit/s'.")] = "10 Mbit/s",
    downlink: Annotated[str, typer.Option(help="Of each device.")] = "50 Mbit/s",
    availability: Annotated[float, typer.Option(help="Chance that a device is there.")] = 1.0,
    dropout: Annotated[float, typer.Option(help="Chance that a selected device leaves.")] = 0.0,
    cv: Annotated[float, typer.Option(help="Spread over mean of the training time.")] = 0.0,
    bits: Annotated[int, typer.Option(help="Of each value of an update.")] = 32,
    keep: Annotated[float, typer.Option(help="Share of an update that is sent (top-k).")] = 1.0,
    secure: Annotated[bool, typer.Option("--secure", help="Secure aggregation.")] = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    as_json: Json = False,
) -> None:
    """Rounds of federated learning on many devices: time, energy, bytes, and who drops out."""
    from accelsim.core.units import parse
    from accelsim.serving.federated import Participants
    from accelsim.serving.federated import federated as run
    from accelsim.techniques.federation import Compression, SecureAggregation
    from accelsim.workload.load import load_workload

    links = {
        f"{name}_bytes_per_s": parse(text, "bandwidth", f"--{name}")
        for name, text in (("uplink", uplink), ("downlink", downlink))
    }
    shared: dict[str, Any] = {"availability": availability, "dropout": dropout, "cv": cv, **links}
    found = run(
        [
            Participants.of(model, device, count=count, batch=items, **shared)
            for device, count in map(_counted, axis("hardware", hardware) or [])
        ],
        parameters=load_workload(model).parameters,
        local_steps=steps,
        rounds=rounds,
        select=select,
        accept=accept,
        deadline_s=deadline_s,
        compression=Compression(bits, keep),
        secure=SecureAggregation() if secure else None,
        seed=seed,
    )
    if as_json:
        emit({"summary": found.summary, "devices": records(found.devices), "rounds": records(found.rounds)})
        return
    typer.echo(repr(found))
    typer.echo(tables.text(records(found.devices)))


def _counted(text: str) -> tuple[str, int]:
    name, _, count = text.rpartition("=")
    if not name or not count.isdigit():
        raise RequestError(f"--hardware '{text}' is not DEVICE=COUNT", hint="such as jetson-orin=500")
    return name, int(count)
