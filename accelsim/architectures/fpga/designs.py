"""Design files that say how a pipeline is folded: FINN's folding JSON, an hls4ml configuration, or plain
pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.architectures.fpga.folding import slowest_that_meets
from accelsim.architectures.fpga.network import Stage, Unit
from accelsim.architectures.fpga.options import Options, divisors, evaluate, options
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.yamlfile import read_yaml

MATRIX = ("mvau", "vvau")

# Node names of FINN by what they fold, older names included: MVAU_hls_3, MatrixVectorActivation_3, VVAU_rtl_0
# ...
_NODES = {
    "mvau": re.compile(r"^(?:MVAU|MatrixVectorActivation|StreamingFCLayer_Batch)(?:_(hls|rtl))?_(\d+)$"),
    "vvau": re.compile(
        r"^(?:VVAU|VectorVectorActivation|Vector_Vector_Activate_Batch)(?:_(hls|rtl))?_(\d+)$"
    ),
    "window": re.compile(r"^ConvolutionInputGenerator(?:1D)?(?:_(hls|rtl))?_(\d+)$"),
    "pool": re.compile(r"^Pool(?:_Batch)?(?:_(hls|rtl))?_(\d+)$"),
    "add": re.compile(r"^(?:AddStreams|StreamingEltwise)(?:_Batch)?(?:_(hls|rtl))?_(\d+)$"),
}
_HLS4ML = frozenset({"Model", "LayerName", "LayerType", "HLSConfig"})


@dataclass(frozen=True)
class Entry:
    """The folding of one stage.

    Attributes
    ----------
    pe, simd : int or None
        None: what keeps up with the given stages.
    generator : int or None
        SIMD of the sliding window where it differs from the matrix unit's.
    multipliers : {"auto", "lut", "dsp"}
    memory, window_memory : {"auto", "distributed", "block", "ultra"}
        Home of the weights and of the window's buffer.
    height : int or None
        Outputs that the design was built for, where it says so.
    """

    pe: int | None = None
    simd: int | None = None
    generator: int | None = None
    multipliers: str = "auto"
    memory: str = "auto"
    window_memory: str = "auto"
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class Design:
    """A design file brought onto the stages of a network.

    Attributes
    ----------
    stages : tuple of Stage
        As given, but with the last matrix unit padded where the design pads it.
    rows : tuple of Options
        One folding per stage.
    notes : tuple of str
        What of the file was not used, and what was changed.
    """

    stages: tuple[Stage, ...]
    rows: tuple[Options, ...]
    notes: tuple[str, ...]


@dataclass
class _Given:
    entries: dict[str, Entry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read(source: Any) -> Any:
    """Content of a design: that of a file (JSON or YAML), or what is no path as it is.

    Raises
    ------
    ConfigError
        The file cannot be read.
    """
    return read_yaml(Path(source)) if isinstance(source, str | Path) else source


def apply(
    stages: Sequence[Stage], content: Any, technology: str = "ultrascale+", *, embedded: bool = False
) -> Design:
    """Fold a network as a design says; stages that it does not name take the cheapest folding that keeps up.

    Parameters
    ----------
    stages : sequence of Stage
    content : sequence or mapping
        * ``[(PE, SIMD), ...]`` for the matrix and depthwise units in order;
        * by stage name, ``(PE, SIMD)`` or ``{"PE": 4, "SIMD": 8, "generator": 8}``;
        * FINN's folding configuration (``MVAU_hls_0: {PE: 4, SIMD: 8, resType: dsp, ram_style: ultra}``);
        * a list of ``layers`` with ``pe`` and ``simd``, or with ``mvau``, ``vvau``, ``swg`` and ``pool``;
        * an hls4ml configuration with reuse factors.
    technology : str
        Fabric family.
    embedded : bool
        See `accelsim.hardware.schema.Dataflow`.

    Raises
    ------
    RequestError
        The design is of another network, or a folding is not legal; the message has the legal values.
    """
    given = _given(stages, content)
    stages = _padded(list(stages), given)
    rows = {s.name: _row(s, given.entries[s.name], technology, embedded) for s in stages if _folds(given, s)}
    slowest = max((float(r.cycles[0]) for r in rows.values()), default=0.0)
    for s in stages:
        if s.name not in rows:
            rows[s.name] = slowest_that_meets(s.unit, technology, slowest, embedded=embedded)
    return Design(tuple(stages), tuple(rows[s.name] for s in stages), tuple(given.notes))


def _folds(given: _Given, stage: Stage) -> bool:
    return stage.name in given.entries and given.entries[stage.name].pe is not None


def _given(stages: Sequence[Stage], content: Any) -> _Given:
    matrix = [s for s in stages if s.unit.kind in MATRIX]
    if isinstance(content, Mapping):
        if isinstance(content.get("fold"), Mapping):
            return _given(stages, content["fold"])
        if isinstance(content.get("layers"), Sequence):
            return _layers(stages, content["layers"])
        if _HLS4ML & set(content):
            return _hls4ml(matrix, content)
        return _named(stages, content)
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise RequestError(f"a folding is a mapping or a list, not {type(content).__name__}")
    if len(content) > len(matrix):
        raise RequestError(f"{len(content)} foldings for {len(matrix)} matrix units", hint=_another(matrix))
    return _Given({s.name: _entry(s.name, f) for s, f in zip(matrix, content)})


def _another(matrix: Sequence[Stage]) -> str:
    return f"the folding is of another network; this one has {', '.join(s.name for s in matrix)}"


def _entry(name: str, value: Any) -> Entry:
    """``(PE, SIMD)`` or a mapping."""
    if isinstance(value, Mapping):
        numbers = {k: value.get(k) for k in ("PE", "SIMD", "generator")}
        pe, simd, generator = (None if v is None else _whole(name, k, v) for k, v in numbers.items())
        if pe is None and simd is None:
            raise RequestError("neither PE nor SIMD is given", name)
        multipliers, memory = str(value.get("resType", "auto")), str(value.get("ram_style", "auto"))
        return Entry(pe or 1, simd or 1, generator, multipliers, memory)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise RequestError(f"'{value}' is not a folding (PE, SIMD)", name)
    return Entry(_whole(name, "PE", value[0]), _whole(name, "SIMD", value[1]))


def _whole(name: str, key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{key} '{value}' is not a whole number above zero", name)
    return value


def _named(stages: Sequence[Stage], content: Mapping[str, Any]) -> _Given:
    """Entries by stage name or by FINN's node names."""
    names = {s.name: s for s in stages}
    groups = {
        "mvau": [s for s in stages if s.unit.kind == "mvau"],
        "vvau": [s for s in stages if s.unit.kind == "vvau"],
        "window": [s for s in stages if s.unit.window is not None and s.unit.kind in MATRIX],
        "pool": [s for s in stages if s.unit.kind in ("pool", "global_pool")],
        "add": [s for s in stages if s.unit.kind == "channelwise" and len(s.edges) > 1],
    }
    found = _Given()
    windows: dict[str, Mapping[str, Any]] = {}
    flavours: dict[str, set[str]] = {}
    unused = []
    for key, value in content.items():
        if key == "Defaults":
            continue
        if key in names:
            found.entries[key] = _entry(key, value)
            continue
        role, match = next(((r, m) for r, p in _NODES.items() if (m := p.match(key))), (None, None))
        if role is None or match is None:
            if re.match(r"^[A-Z]\w*_\d+$", key):  # another node of FINN
                unused.append(key)
                continue
            raise RequestError(f"no stage '{key}' to fold", hint=did_you_mean(key, list(names)))
        flavours.setdefault(role, set()).add(match[1] or "")
        if len(flavours[role]) > 1:
            raise RequestError(
                f"'{key}' stands beside nodes of another make, which are numbered apart",
                hint=f"name the stages instead: {', '.join(s.name for s in groups[role])}",
            )
        index = int(match[2])
        if index >= len(groups[role]):
            if role == "window":  # of a pool, which has none of its own here
                unused.append(key)
                continue
            matrix = [s for s in stages if s.unit.kind in MATRIX]
            raise RequestError(
                f"'{key}' has no match among {len(groups[role])} {role} units", hint=_another(matrix)
            )
        stage = groups[role][index]
        if role == "window":
            windows[stage.name] = value
        else:
            found.entries[stage.name] = _entry(key, value)
    matrix = [s for s in stages if s.unit.kind in MATRIX]
    for role in MATRIX:
        given = sum(s.name in found.entries for s in groups[role])
        if role in flavours and given < len(groups[role]):
            words = f"{given} {role} nodes for {len(groups[role])} {role} units"
            raise RequestError(words, hint=_another(matrix))
    for name, value in windows.items():
        found.entries[name] = _with_window(found.entries.get(name, Entry()), name, value)
    if unused:
        more = f" and {len(unused) - 4} more" if len(unused) > 4 else ""
        found.notes.append(f"the folding of {', '.join(unused[:4])}{more} was not used: they keep up")
    return found


def _with_window(entry: Entry, name: str, value: Mapping[str, Any]) -> Entry:
    home = str(value.get("ram_style", "auto"))
    lanes = value.get("SIMD")
    if lanes is None or value.get("parallel_window"):
        return replace(entry, window_memory=home)
    return replace(entry, generator=_whole(name, "SIMD", lanes), window_memory=home)


def _layers(stages: Sequence[Stage], layers: Sequence[Any]) -> _Given:
    """A list of layers, in order: matrix and depthwise units, and pools where the list has them."""
    matrix = [s for s in stages if s.unit.kind in MATRIX]
    pools = [s for s in stages if s.unit.kind in ("pool", "global_pool")]
    found = _Given()
    number = 0
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise RequestError(f"'{layer}' is not a layer of a folding")
        if isinstance(layer.get("pool"), Mapping):
            if pools:
                found.entries[pools[0].name] = _entry(pools[0].name, layer["pool"])
                pools = pools[1:]
            continue
        if number == len(matrix):
            count = sum(not (isinstance(x, Mapping) and "pool" in x) for x in layers)
            raise RequestError(f"{count} foldings for {len(matrix)} matrix units", hint=_another(matrix))
        stage = matrix[number]
        number += 1
        unit = layer.get("mvau", layer.get("vvau", {"PE": layer.get("pe"), "SIMD": layer.get("simd")}))
        entry = _entry(stage.name, unit)
        if isinstance(layer.get("swg"), Mapping):
            entry = _with_window(entry, stage.name, layer["swg"])
        found.entries[stage.name] = replace(entry, width=layer.get("mw"), height=layer.get("mh"))
    if number < len(matrix):
        raise RequestError(f"{number} foldings for {len(matrix)} matrix units", hint=_another(matrix))
    return found


def valid_reuse(n_in: int, n_out: int) -> list[int]:
    """Reuse factors that hls4ml accepts for a layer: divisors of n_in, and n_in times divisors of n_out.

    Its rule is RF | n_in n_out; RF < n_in or n_in | RF; and ceil(n_in n_out / min(n_in, RF)) a multiple of
    n_out or RF >= n_in (hls4ml, fpga_backend.py, Duarte et al., JINST 2018,
    doi:10.1088/1748-0221/13/07/P07027).
    """
    return sorted({*divisors(n_in), *(n_in * d for d in divisors(n_out))})


def nearest_reuse(requested: int, n_in: int, n_out: int) -> int:
    """The valid reuse factor next to a requested one; the smaller of two at the same distance."""
    return min(valid_reuse(n_in, n_out), key=lambda rf: (abs(rf - requested), rf))


def unrolled(reuse: int, n_in: int, n_out: int) -> tuple[int, int]:
    """(PE, SIMD) of a valid reuse factor: n_in n_out / RF multipliers, an input's products side by side."""
    return (n_out, n_in // reuse) if reuse <= n_in else (n_out * n_in // reuse, 1)


def _hls4ml(matrix: Sequence[Stage], content: Mapping[str, Any]) -> _Given:
    """Reuse factors: of the layer's name, else of its type, else of the model."""
    content = content.get("HLSConfig", content)
    model, by_name = content.get("Model") or {}, content.get("LayerName") or {}
    by_type = content.get("LayerType") or {}
    if not all(isinstance(part, Mapping) for part in (model, by_name, by_type)):
        raise RequestError("'Model', 'LayerName' and 'LayerType' of an hls4ml configuration are mappings")
    reused = {name: v for name, v in by_name.items() if isinstance(v, Mapping) and "ReuseFactor" in v}
    found = _Given()
    known = {s.name for s in matrix}
    unmatched = [name for name in reused if name not in known]
    pending = [s for s in matrix if s.name not in reused]
    if unmatched and len(unmatched) == len(pending):  # other names, the same number of layers: in order
        reused |= {s.name: reused[name] for s, name in zip(pending, unmatched)}
        unmatched = []
    if unmatched and not any(name in known for name in reused):
        raise RequestError(f"no layer '{unmatched[0]}' to fold", hint=_another(matrix))
    kinds = {"mvau": ("Dense",), "vvau": ("DepthwiseConv2D", "DepthwiseConv1D")}
    for s in matrix:
        unit = s.unit
        types = ("Conv2D", "Conv1D") if unit.window is not None and unit.kind == "mvau" else kinds[unit.kind]
        typed: Mapping[str, Any] = next(
            (by_type[t] for t in types if isinstance(by_type.get(t), Mapping)), {}
        )
        for source in (reused.get(s.name, {}), typed, model):
            if "ReuseFactor" in source:
                asked = _whole(s.name, "ReuseFactor", source["ReuseFactor"])
                break
        else:
            asked = 1
        if unit.kind == "vvau":
            reuse = min(divisors(unit.mw), key=lambda d: (abs(d - asked), d))
            found.entries[s.name] = Entry(unit.mh, unit.mw // reuse)
        else:
            reuse = nearest_reuse(asked, unit.mw, unit.mh)
            pe, simd = unrolled(reuse, unit.mw, unit.mh)
            found.entries[s.name] = Entry(pe, simd)
        if reuse != asked:
            found.notes.append(f"{s.name}: reuse factor {asked} is not valid, {reuse} takes its place")
    found.notes.append("precisions come from the model, not from the hls4ml configuration")
    if unmatched:
        found.notes.append(f"reuse factors of {', '.join(unmatched[:4])} belong to no matrix unit")
    return found


def _padded(stages: list[Stage], given: _Given) -> tuple[Stage, ...]:
    """A design may say that it pads the outputs of the last layer; every other size must agree."""
    matrix = [i for i, s in enumerate(stages) if s.unit.kind in MATRIX]
    for i in matrix:
        entry, unit, name = given.entries.get(stages[i].name), stages[i].unit, stages[i].name
        if entry is None or entry.pe is None:
            continue
        last = i == matrix[-1] and unit.kind == "mvau"
        height = entry.height or unit.mh
        if entry.width not in (None, unit.mw) or (height != unit.mh and not (last and height > unit.mh)):
            built = f"{entry.width or unit.mw} x {height}"
            raise RequestError(
                f"the folding is of a {built} layer, this one is {unit.mw} x {unit.mh}",
                name,
                _another([stages[k] for k in matrix]),
            )
        if height != unit.mh:
            weights = unit.weights // unit.mh * height
            stages[i] = replace(stages[i], unit=replace(unit, mh=height, weights=weights))
            given.notes.append(f"{name}: padded from {unit.mh} to {height} outputs, as the design says")
    return tuple(stages)


def _row(stage: Stage, entry: Entry, technology: str, embedded: bool) -> Options:
    """The folding of a stage, checked."""
    unit = stage.unit
    pe, simd = entry.pe or 1, entry.simd or 1
    columns = unit.mw if unit.kind in MATRIX else 1
    for key, value, size in (("PE", pe, unit.mh), ("SIMD", simd, columns)):
        if size % value:
            raise RequestError(f"{key} {value} does not divide {size}", stage.name, _legal(divisors(size)))
    if unit.kind == "vvau" and simd > 1 and pe < unit.mh:
        raise RequestError(
            f"a depthwise unit takes SIMD {simd} only at PE {unit.mh}", stage.name, "raise PE first"
        )
    generator = entry.generator
    if generator is not None and unit.channels % generator:
        hint = _legal(divisors(unit.channels))
        raise RequestError(
            f"SIMD {generator} of the window does not divide {unit.channels}", stage.name, hint
        )
    return _homes(_evaluated(unit, technology, pe, simd, generator, embedded), entry)


@lru_cache(maxsize=65536)
def _evaluated(
    unit: Unit, technology: str, pe: int, simd: int, generator: int | None, embedded: bool
) -> Options:
    """One folding: from the table of all legal ones where it has no window of its own."""
    if generator is None:
        every = options(unit, technology, embedded)
        found = np.flatnonzero((every.pe == pe) & (every.simd == simd))
        if len(found):
            return every.take(found[:1])
    lanes = None if generator is None else np.array([generator])
    return evaluate(unit, technology, np.array([pe]), np.array([simd]), lanes, embedded=embedded)


def _legal(values: Sequence[int]) -> str:
    shown = [str(v) for v in values]
    if len(shown) > 16:
        shown = [*shown[:12], "...", *shown[-3:]]
    return f"legal values: {', '.join(shown)}"


def _homes(row: Options, entry: Entry) -> Options:
    """Multipliers and memories where the design puts them."""
    if entry.multipliers == "lut":
        row = replace(row, multiplier_dsp=np.zeros(1))
    elif entry.multipliers == "dsp" and row.multiplier_dsp[0] > 0:
        none = np.zeros(1)
        row = replace(row, dsp=row.dsp + row.multiplier_dsp, multiplier_lut=none, multiplier_dsp=none)
    bram, ultra, distributed, lut = row.bram18.copy(), row.uram.copy(), row.lutram.copy(), row.lut.copy()
    for column, home in enumerate((entry.memory, entry.window_memory)):
        if home == "distributed":
            lut += distributed[:, column]
            bram[:, column] = ultra[:, column] = distributed[:, column] = 0
        elif home == "block":
            ultra[:, column] = distributed[:, column] = 0
        elif home == "ultra" and ultra[0, column] > 0:
            row = replace(row, fixed_uram=row.fixed_uram + ultra[:, column])
            bram[:, column] = ultra[:, column] = distributed[:, column] = 0
    return replace(row, lut=lut, bram18=bram, uram=ultra, lutram=distributed)
