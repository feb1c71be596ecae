"""Measured runs of Triton and TorchServe, replayed: the same arrivals through the same rules.

The runs were measured for this project with a model that sleeps (``validation/serving``): arrival, answer and
batch of every request. One service law and one set of overheads per server serves all its runs; nothing is
fitted per run. ``validation/serving/servers.yaml`` has them and says where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.core.errors import ConfigError
from accelsim.core.outcome import Infeasible
from accelsim.core.paths import data_folder
from accelsim.core.yamlfile import read_yaml
from accelsim.serving.ensemble import Ensemble
from accelsim.serving.outcome import ServeResult
from accelsim.serving.requests import Requests
from accelsim.serving.serve import serve
from accelsim.serving.service import LinearService, Overheads
from accelsim.serving.station import COMPLETED, Policy
from accelsim.serving.torchserve import TorchServe
from accelsim.serving.triton_config import from_text
from accelsim.validate import queueing
from accelsim.validate.table import Table

if TYPE_CHECKING:
    import pandas as pd

SERVERS = ("triton", "torchserve")
OK = 200
"""HTTP status of an answer."""


def tables(folder: Path | None = None, requests: int = queueing.REQUESTS) -> Iterator[Table]:
    """Exact references, and every measured run beside its replay.

    Parameters
    ----------
    folder : Path, optional
        Other runs in the same form: a folder with ``triton/`` or ``torchserve/``, each with a
        ``manifest.json``.
    requests : int
        Length of the runs against exact references.

    Yields
    ------
    Table
    """
    yield Table(
        "Exact queueing references",
        "Mean time in the system; `errors` is the distance in batch-means standard errors.",
        queueing.table(requests),
    )
    root = folder if folder is not None else data_folder("validation") / "serving"
    for server in SERVERS:
        if (root / server / "manifest.json").exists():
            note = (
                "Errors of mean, median and 99th percentile latency and mean batch in percent, refused "
                "shares in percent of the requests. One set of overheads, chosen with these runs in view."
            )
            yield Table(f"Replay of measured runs: {server}", note, replay(root / server))


def replay(folder: Path) -> pd.DataFrame:
    """Every run of a folder against its replay.

    Returns
    -------
    DataFrame
        ``run requests mean_ms p50_ms p99_ms mean_error_pct p50_error_pct p99_error_pct batch_error_pct
        refused_pct predicted_refused_pct``; a model or priority of a run with several has its own row.
    """
    import pandas as pd

    manifest = _manifest(folder)
    rows: list[dict[str, Any]] = []
    for run in manifest["runs"]:
        if run["tag"].startswith("null"):
            continue  # a model that does nothing: it measures the overheads, there is no law to replay
        measured = pd.read_csv(folder / run["file"])
        result = _serve(folder.name, run, measured)
        rows.append(_row(run["tag"], measured, result, np.ones(len(measured), bool)))
        for column in ("priority", "model"):
            if column in measured:
                for value in sorted(measured[column].unique()):
                    mine = (measured[column] == value).to_numpy()
                    label = f"{run['tag']}, {column} {value}"
                    rows.append(_row(label, measured, result, mine, batches=False))
    return pd.DataFrame(rows)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read ({error})", str(folder / "manifest.json")) from None
    return data


def server(name: str) -> tuple[dict[str, float], Overheads]:
    """Service law and overheads of a measured server.

    Returns
    -------
    dict, Overheads
        How an execution differs from the nominal sleep: ``fixed_s`` and ``per_item_s`` are added, ``share``
        of the nominal time per item; and what the server adds around it.
    """
    data = read_yaml(data_folder("validation") / "serving" / "servers.yaml")[name]
    return dict(data["execution"]), Overheads(**data["overheads"])


def _serve(name: str, run: Mapping[str, Any], measured: pd.DataFrame) -> ServeResult:
    extra, overheads = server(name)
    config = run["config"]
    arrival = measured["arrival_s"].to_numpy(np.float64)
    # Send times are written with a resolution of 10 us, so that neighbours may be equal but never swapped.
    order = np.argsort(arrival, kind="stable")
    if name == "torchserve":
        requests = Requests(arrival[order])
        return _run(_law({}, extra), requests, _torch(config), overheads)
    models = {key: from_text(text) for key, text in config.items()}
    whole = next((m for m in models.values() if m.steps), None)
    laws = {m.name: _law(m.parameters, extra) for m in models.values() if not m.steps}
    priority = measured["priority"].to_numpy(np.int64)[order] if "priority" in measured else None
    if whole is not None:
        parts = {m.name: m for m in models.values()}
        flow = Ensemble.of(whole, parts, laws)
        return _run(flow, Requests(arrival[order]), None, overheads)
    index = None
    if "model" in measured:
        index = measured["model"].map({key: i for i, key in enumerate(models)}).to_numpy(np.int64)[order]
    requests = Requests(arrival[order], priority=priority, model=index)
    policies: dict[str, Policy] = {key: m.policy for key, m in models.items()}
    named = {key: laws[m.name] for key, m in models.items()}
    return _run(named, requests, policies, overheads)


def _run(models: Any, requests: Requests, batching: Any, overheads: Overheads) -> ServeResult:
    answer = serve(models, arrivals=requests, batching=batching, overheads=overheads)
    if isinstance(answer, Infeasible):
        raise ConfigError(f"cannot be replayed: {answer}")
    return answer


def _law(parameters: Mapping[str, str], extra: Mapping[str, float]) -> LinearService:
    """The sleep of the measured model, 4 ms and 0.5 ms per item unless its parameters say otherwise."""
    fixed, per_item = float(parameters.get("a", 0.004)), float(parameters.get("c", 0.0005))
    return LinearService(fixed + extra["fixed_s"], per_item * (1 + extra["share"]))


def _torch(config: Mapping[str, Any]) -> TorchServe:
    text = str(config.get("config_properties", ""))
    settings = dict(line.split("=", 1) for line in text.split() if "=" in line)
    return TorchServe(
        int(config["batch_size"]),
        int(config["max_batch_delay"]),
        int(config["initial_workers"]),
        int(settings.get("job_queue_size", 100)),
    )


def _row(
    tag: str, measured: pd.DataFrame, result: ServeResult, mine: np.ndarray[Any, Any], batches: bool = True
) -> dict[str, Any]:
    """One run, or a part of its requests."""
    ordered = np.argsort(measured["arrival_s"].to_numpy(), kind="stable")
    frame = measured.iloc[ordered]
    mine = mine[ordered]
    ok = (frame["status"] == OK).to_numpy()
    truth = (frame["finish_s"] - frame["arrival_s"]).to_numpy()[ok & mine]
    log = result.log
    served = log.status == COMPLETED
    mimic = ((log.finish_ns - log.arrival_ns) / 1e9 + result.extra_s)[served & mine]
    numbers = {
        "mean": (truth.mean(), mimic.mean()),
        **{f"p{q}": (np.percentile(truth, q), np.percentile(mimic, q)) for q in (50, 99)},
    }
    sizes = frame[ok].groupby("batch_id")["batch_size"].first()
    batch = np.nan
    if batches and "model" not in frame:
        batch = 100 * (result.stations[0].log.size.mean() / sizes.mean() - 1)
    return {
        "run": tag,
        "requests": int(mine.sum()),
        **{f"{name}_ms": 1e3 * a for name, (a, _) in numbers.items()},
        **{f"{name}_error_pct": 100 * (b / a - 1) for name, (a, b) in numbers.items()},
        "batch_error_pct": batch,
        "refused_pct": 100 * float(1 - ok[mine].mean()),
        "predicted_refused_pct": 100 * float(1 - served[mine].mean()),
    }
