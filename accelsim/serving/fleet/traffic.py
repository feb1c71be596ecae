"""What arrives at a fleet, from its file.

.. code-block:: yaml

    traffic:
      arrivals: {poisson: {rate_per_s: 20, prompt_tokens: {lognormal: {mean: 900}}, output_tokens: 200}}
      requests: 5000
      seed: 1
      slo: {ttft_s: 0.5, tpot_s: 0.03}

``arrivals`` is one process, a trace (``{trace: {path: requests.csv}}``, beside the file), or a list of
streams, each with ``arrivals`` and what all its requests ask for (``model``, ``priority``, ``timeout_s``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelsim.core.errors import ConfigError
from accelsim.serving.arrivals import (
    MMPP,
    ClosedLoop,
    Deterministic,
    Diurnal,
    EmpiricalLengths,
    Gamma,
    LogNormalLengths,
    Poisson,
    Stream,
    Superposition,
    UniformLengths,
)
from accelsim.serving.fleet.reading import Kinds, call, check_keys, listed, make, mapping, one_of
from accelsim.serving.traces import Trace

ARRIVALS: Kinds = {
    "poisson": Poisson, "gamma": Gamma, "deterministic": Deterministic, "mmpp": MMPP, "diurnal": Diurnal,
    "closed_loop": ClosedLoop, "trace": Trace,
}  # fmt: skip
LENGTHS: Kinds = {
    "uniform": UniformLengths, "lognormal": LogNormalLengths, "observed": EmpiricalLengths,
}  # fmt: skip
SETTINGS: Mapping[str, type] = {
    "requests": int, "seed": int, "warmup": float, "slo_s": float, "until_s": float,
}  # fmt: skip


def read_traffic(document: Any, path: Path) -> dict[str, Any]:
    """Arguments of `serve_fleet` from the section ``traffic`` of a file.

    Raises
    ------
    ConfigError
        A key or kind that is not known, a missing or wrong value.
    """
    where = f"{path}: traffic"
    given = dict(mapping(document, where))
    check_keys(given, ("arrivals", "slo", *SETTINGS), where)
    for name, kind in SETTINGS.items():
        if name in given:
            given[name] = _number(given[name], kind, f"{where}.{name}")
    if "slo" in given:
        slo = mapping(given["slo"], f"{where}.slo")
        check_keys(slo, ("ttft_s", "tpot_s", "e2e_s"), f"{where}.slo")
        given["slo"] = {name: _number(value, float, f"{where}.slo.{name}") for name, value in slo.items()}
    if "arrivals" in given:
        given["arrivals"] = arrivals_of(given["arrivals"], f"{where}.arrivals", path.parent)
    return given


def _number(value: Any, kind: type, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise ConfigError(f"'{value}' is not a {'whole ' if kind is int else ''}number", where)
    return kind(value)


def arrivals_of(entry: Any, where: str, folder: Path = Path()) -> Any:
    """Arrivals from what a file says of them; paths of traces start at the folder.

    Raises
    ------
    ConfigError
        A key or kind that is not known, a missing or wrong value.
    """
    if isinstance(entry, list):
        streams = [_stream(part, f"{where}[{i}]", folder) for i, part in enumerate(listed(entry, where))]
        return call(lambda: Superposition(*streams), {}, where)
    given = mapping(entry, where)
    return one_of(
        {kind: _filled(kind, options, f"{where}.{kind}", folder) for kind, options in given.items()},
        ARRIVALS,
        where,
    )


def _filled(kind: str, options: Any, where: str, folder: Path) -> Any:
    """The options of a process with its lengths as laws, and a trace's path beside the file."""
    if not isinstance(options, Mapping) or kind not in ARRIVALS:
        return options
    found = dict(options)
    for name in ("prompt_tokens", "output_tokens", "prefix_tokens"):
        if name in found:
            found[name] = _length(found[name], f"{where}.{name}")
    if kind == "trace" and isinstance(found.get("path"), str):
        found["path"] = folder / found["path"]
    return found


def _length(value: Any, where: str) -> Any:
    return one_of(value, LENGTHS, where) if isinstance(value, Mapping) else _number(value, int, where)


def _stream(entry: Any, where: str, folder: Path) -> Stream:
    given = dict(mapping(entry, where))
    if "arrivals" in given:
        given["arrivals"] = arrivals_of(given["arrivals"], f"{where}.arrivals", folder)
    made: Stream = make(Stream, given, where)
    return made
