"""Commands for buyers: serve, size, tradeoff."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.cli.common import Json, axis, emit
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.frames import records
from accelsim.core.outcome import Infeasible
from accelsim.report import tables

app = typer.Typer()

SERVERS = ("triton", "torchserve", "tfserving", "none")
TOKEN_SERVERS = ("vllm", "sglang", "trtllm")
SHOWN = (
    *("status", "latency_mean_s", "latency_p50_s", "latency_p99_s", "throughput_per_s", "mean_batch"),
    *("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "output_tokens_per_s", "goodput_per_s"),
)
SIZED = ("hardware", "precision", "batching", "status", "reason", "replicas", "usd_per_hour", "headroom_pct")


@app.command()
def serve(
    model: Annotated[
        str | None, typer.Argument(help="Workload name or file; a fleet's file brings its own.")
    ] = None,
    hardware: Annotated[str | None, typer.Option("--hardware", "-d", help="Device name or file.")] = None,
    rate: Annotated[list[float] | None, typer.Option("--rate", help="Poisson arrivals per second.")] = None,
    trace: Annotated[Path | None, typer.Option(help="A trace of arrivals instead.")] = None,
    fleet: Annotated[Path | None, typer.Option(help="A fleet with its pools and faults, .yaml.")] = None,
    server: Annotated[
        str, typer.Option(help="triton, torchserve, tfserving or none; vllm, sglang or trtllm, by token.")
    ] = "triton",
    max_batch: Annotated[int | None, typer.Option(help="Largest batch, or sequences at once.")] = None,
    delay_us: Annotated[int, typer.Option(help="How long a batch waits to fill [us].")] = 0,
    instances: Annotated[int, typer.Option(help="Instances of the model.")] = 1,
    config: Annotated[
        Path | None, typer.Option(help="The server's own file instead: config.pbtxt, .properties or .txt.")
    ] = None,
    precision: Annotated[str | None, typer.Option("--precision", "-p", help="Number format.")] = None,
    prompt: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 512,
    output: Annotated[int, typer.Option(help="Tokens of an answer.")] = 128,
    prefix_tokens: Annotated[
        int | None, typer.Option(help="Tokens at the start of a prompt that requests share.")
    ] = None,
    prefix_groups: Annotated[int, typer.Option(help="Different starts; a request has one of them.")] = 1,
    no_prefix_caching: Annotated[
        bool, typer.Option("--no-prefix-caching", help="The server keeps no cache of starts.")
    ] = False,
    tensor: Annotated[int | None, typer.Option(help="Tensor-parallel degree.")] = None,
    prefill: Annotated[int | None, typer.Option(help="Engines for prompts only; with --decode.")] = None,
    decode: Annotated[int | None, typer.Option(help="Engines for tokens only; with --prefill.")] = None,
    requests: Annotated[
        int | None, typer.Option(help="How many; 100,000 by default, 1,000 by token.")
    ] = None,
    slo: Annotated[
        list[str] | None,
        typer.Option(help="Of the goodput: latency_s=0.02, or ttft_s, tpot_s, e2e_s by token; repeat."),
    ] = None,
    warmup: Annotated[float, typer.Option(help="Share of requests that statistics leave out.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the arrivals.")] = 0,
    as_json: Json = False,
) -> None:
    """What requests meet behind a server: latency percentiles, goodput, batches."""
    from accelsim.serving.arrivals import Poisson
    from accelsim.serving.llm.policy import ContinuousBatching
    from accelsim.serving.service import DeviceService
    from accelsim.serving.traces import Trace

    if fleet is None and bool(rate) == (trace is not None):
        raise RequestError("give --rate or --trace", hint="--rate 800; repeat it for a curve")
    by_token = server in TOKEN_SERVERS
    if prefix_tokens is not None and (trace is not None or not by_token):
        raise RequestError("--prefix-tokens is of prompts that arrive at a --rate, by token")
    lengths: dict[str, Any] = {"prompt_tokens": prompt, "output_tokens": output} if by_token else {}
    if prefix_tokens is not None:
        lengths |= {"prefix_tokens": prefix_tokens, "prefix_groups": prefix_groups}
    arrivals: list[Any] = [Trace(trace)] if trace is not None else [Poisson(r, **lengths) for r in rate or []]
    shared = {"requests": requests, "seed": seed, "warmup": warmup}
    objectives = dict(_objective(text) for text in slo or ())
    if not by_token:
        shared["slo_s"] = objectives.pop("latency_s", None)
    if objectives and not by_token and fleet is None:
        hint = "latency_s; of a server by token ttft_s, tpot_s, e2e_s"
        raise RequestError(f"{server} has no objective '{min(objectives)}'", hint=hint)
    if fleet is not None:
        if model is not None or hardware is not None:
            raise RequestError("a fleet's file brings its own models and devices", hint="change them there")
        outcomes = _fleet(fleet, arrivals, {**shared, "slo": objectives})
    elif model is None or hardware is None:
        raise RequestError("give a model and --hardware, or --fleet")
    elif by_token:
        split = None if tensor is None else {"tensor": tensor}
        options = {"slo": objectives, "parallel": split, "prefill": prefill, "decode": decode, **shared}
        rules = ContinuousBatching(server, max_num_seqs=max_batch, prefix_caching=not no_prefix_caching)
        outcomes = _served(model, hardware, arrivals, rules, {"precision": precision, **options})
    else:
        policy = _policy(server, max_batch or 8, delay_us, instances, config)
        law = DeviceService.of(model, hardware, max_batch=policy.max_batch, precision=precision)
        outcomes = _served(law, None, arrivals, policy, shared)
    given: list[float | None] = [*rate] if rate else [None] * len(outcomes)
    if as_json:
        emit([{"rate_per_s": r, **o.summary} for r, o in zip(given, outcomes)])
        return
    names = SHOWN if prefix_tokens is None else (*SHOWN, "prefix_hit_pct")
    rows = []
    for r, outcome in zip(given, outcomes):
        if isinstance(outcome, Infeasible):
            typer.echo(str(outcome))
            continue
        shown = {n: outcome.summary[n] for n in names if n in outcome.summary}
        rows.append({"rate_per_s": r or "trace", **shown})
    typer.echo(tables.text(rows))
    for note in dict.fromkeys(n for o in outcomes for n in getattr(o, "notes", ())):
        typer.echo(f"note: {note}")


def _served(
    model: Any, hardware: str | None, arrivals: list[Any], rules: Any, options: dict[str, Any]
) -> list[Any]:
    from accelsim.serving.serve import serve as served

    return [served(model, hardware, arrivals=coming, batching=rules, **options) for coming in arrivals]


def _fleet(file: Path, arrivals: list[Any], options: Any) -> list[Any]:
    """The file's own traffic, or other arrivals; a seed or warm-up of 0 leaves those of the file."""
    from accelsim.serving.fleet.document import serve_file

    said = {name: value for name, value in options.items() if value}
    return [serve_file(file, arrivals=coming, **said) for coming in arrivals or [None]]


@app.command()
def tradeoff(
    model: Annotated[str, typer.Argument(help="Workload name or file.")],
    hardware: Annotated[list[str], typer.Option("--hardware", "-d", help="Device; repeat for several.")],
    items: Annotated[int, typer.Option("--batch", "-b", help="Items per run.")] = 1,
    phase: Annotated[str | None, typer.Option(help="forward, prefill or decode.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Your own dated prices, .yaml.")] = None,
    as_json: Json = False,
) -> None:
    """What each technique brings on each device, and what it costs in accuracy, energy and money."""
    from accelsim.explore.tradeoff import CELLS
    from accelsim.explore.tradeoff import tradeoff as traded

    found = traded(
        model, axis("hardware", hardware), batch=items, phase=phase, context=context, prices=prices
    )
    rows = records(found.frame)
    if as_json:
        emit(rows)
        return
    keys = ("hardware", "technique", "level", *CELLS)
    typer.echo(tables.text([{name: row.get(name, "") for name in keys} for row in rows]))


@app.command()
def size(
    model: Annotated[str, typer.Argument(help="Workload name or file.")],
    hardware: Annotated[list[str], typer.Option("--hardware", "-d", help="Candidate; repeat for several.")],
    rate: Annotated[float, typer.Option(help="Requests per second.")],
    slo: Annotated[list[str], typer.Option(help="Objective, such as p99_ms=15; repeat for several.")],
    precision: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="Format; repeat for several.")
    ] = None,
    objective: Annotated[str, typer.Option(help="cost, replicas, power or energy.")] = "cost",
    prices: Annotated[Path | None, typer.Option(help="Your own dated prices, .yaml.")] = None,
    sure: Annotated[bool, typer.Option("--sure", help="Meet it at the far end of the error band.")] = False,
    requests: Annotated[int, typer.Option(help="Requests of each simulation.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Of the arrivals.")] = 0,
    as_json: Json = False,
) -> None:
    """The smallest or cheapest fleet that meets a latency objective."""
    from accelsim.explore.sizing import size_for

    formats = axis("precision", precision)
    found = size_for(
        model,
        slo=dict(_objective(text) for text in slo),
        hardware=axis("hardware", hardware),
        rate_per_s=rate,
        precision=None if formats is None else formats if len(formats) > 1 else formats[0],
        objective=objective,
        prices_from=prices,
        sure=sure,
        requests=requests,
        seed=seed,
    )
    rows = [dict(row) for row in found.rows]
    if as_json:
        emit({"winner": found.winner, "rows": rows, "notes": list(found.notes)})
        return
    keys = [n for n in SIZED if any(n in row for row in rows)] + [t.partition("=")[0] for t in slo]
    typer.echo(tables.text([{name: row.get(name, "") for name in keys} for row in rows]))
    typer.echo(repr(found))


def _objective(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise RequestError(f"--slo '{text}' is not NAME=NUMBER", hint="such as p99_ms=15") from None


def _policy(server: str, max_batch: int, delay_us: int, instances: int, config: Path | None) -> Any:
    """The batching of a server, by options or from its own file."""
    from accelsim.serving.batching import NoBatching
    from accelsim.serving.tfserving import TensorFlowServing
    from accelsim.serving.torchserve import TorchServe
    from accelsim.serving.triton import Triton

    kinds: dict[str, Any] = {"triton": Triton, "torchserve": TorchServe, "tfserving": TensorFlowServing}
    if server not in SERVERS:
        raise RequestError(
            f"unknown server '{server}'", hint=did_you_mean(server, (*SERVERS, *TOKEN_SERVERS))
        )
    if config is not None:
        if server == "none":
            raise RequestError("no server has no file", hint="leave out --config")
        return kinds[server].from_config(str(config))
    if server == "triton":
        return Triton(max_batch=max_batch, max_queue_delay_us=delay_us, instances=instances)
    if server == "torchserve":
        return TorchServe(max_batch=max_batch, max_batch_delay_ms=round(delay_us / 1e3), workers=instances)
    if server == "tfserving":
        return TensorFlowServing(max_batch=max_batch, batch_timeout_us=delay_us, threads=instances)
    return NoBatching(instances=instances)
