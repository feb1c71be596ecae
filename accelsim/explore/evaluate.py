"""Points to rows: the part of a sweep that workers run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelsim.engine.many import simulate_batches
from accelsim.engine.simulate import simulate
from accelsim.explore import served
from accelsim.explore.space import Space
from accelsim.explore.store import Columns
from accelsim.hardware.spec import load_hardware
from accelsim.workload.load import load_workload, workload_file

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Whole = npt.NDArray[np.int64]

REQUEST = ("workload", "hardware", "batch", "precision")


@dataclass(frozen=True)
class Group:
    """Points that differ in their batch alone.

    Attributes
    ----------
    settings : mapping
        The other arguments of `simulate`; dotted names are hardware parameters.
    batches : ndarray
        Ascending, each once.
    positions : ndarray
        Where the points stand in what was asked for.
    """

    settings: Mapping[str, Any]
    batches: Whole
    positions: Whole

    def parts(self, points: int) -> Iterator[Group]:
        """The group in parts of at most so many points."""
        for start in range(0, len(self.batches), points):
            here = slice(start, start + points)
            yield Group(self.settings, self.batches[here], self.positions[here])


def groups_of(space: Space, positions: Whole) -> list[Group]:
    """Points of a space, by all that is not the batch."""
    import numpy as np

    if not len(positions):
        return []
    steps = space.steps_of(positions)
    values = np.array(space.axes["batch"], dtype=np.int64)
    alone = "batch" in steps  # a batch that other axes advance with is theirs
    batches = values[steps["batch" if alone else space.dimension_of("batch")]]
    key = np.zeros(len(positions), dtype=np.int64)
    for name, count in space.dimension_sizes.items():
        if name != "batch":
            key = key * count + steps[name]
    order = np.lexsort((batches, key))
    ends = np.flatnonzero(np.diff(key[order])) + 1
    found = []
    for chosen in np.split(order, ends):
        point = space.point(int(positions[chosen[0]]))
        settings = {name: value for name, value in point.items() if name != "batch"}
        found.append(Group(settings, batches[chosen], positions[chosen]))
    return found


class Loaded:
    """Devices and models by the name that the points of a task give them: read once, since looking whether
    their files have changed takes longer than a small simulation.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], Any] = {}

    def device(self, name: Any) -> Any:
        """See `load_hardware`."""
        return self._once(("hardware", name), lambda: load_hardware(name))

    def workload(self, settings: Mapping[str, Any]) -> Any:
        """See `load_workload`; models of other programs are left to `simulate`."""
        name, dims, phase, context = (settings.get(n) for n in ("workload", "dims", "phase", "context"))
        if not isinstance(name, str) or dims:
            return name
        key = ("workload", name, phase, context)
        return self._once(key, lambda: load_workload(name, phase=phase, context=context))

    def _once(self, key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        if key not in self._held:
            self._held[key] = load()
        return self._held[key]


def rows_of(group: Group, loaded: Loaded) -> Iterator[tuple[list[int], Columns]]:
    """Tables of the rows of a group, each with the positions of its rows."""
    import numpy as np

    changes = {name: value for name, value in group.settings.items() if "." in name}
    settings = {name: value for name, value in group.settings.items() if "." not in name}
    device = loaded.device(settings["hardware"])
    named = device.name
    settings["hardware"] = device.replace(**changes) if changes else device
    if served.is_served(settings):
        row = {**served.summary_of(settings), "hardware": named}
        row |= {n: v for n, v in group.settings.items() if n not in REQUEST and n not in row}
        yield group.positions.tolist(), {name: [_plain(value)] for name, value in row.items()}
        return
    settings["workload"] = loaded.workload(settings)
    batches = group.batches.tolist()
    tables = simulate_batches(batches=batches, **settings)
    if tables is None:
        rows = [simulate(**settings, batch=batch).summary for batch in batches]
        for row in rows:
            row["hardware"] = named
        tables = [_table(rows)]
    for table in tables:
        held = np.asarray(table["batch"], dtype=np.int64)
        positions = group.positions[np.searchsorted(group.batches, held)].tolist()
        extra = {n: v for n, v in group.settings.items() if n not in REQUEST and n not in table}
        columns = {**table, "hardware": named, **extra}
        yield positions, {name: _listed(values, len(positions)) for name, values in columns.items()}


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as columns, None where a row has no such number."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _listed(values: Any, count: int) -> list[Any]:
    """A column of plain numbers and texts from an array, a list, or the value of all rows."""
    if isinstance(values, list):
        return [_plain(v) for v in values]
    if getattr(values, "shape", ()):
        held: list[Any] = values.tolist()
        return held
    return [_plain(values)] * count


def evaluate(points: Sequence[Mapping[str, Any]]) -> Columns:
    """Simulate points.

    Parameters
    ----------
    points : sequence of mapping
        Arguments of `simulate`; dotted names are hardware parameters.

    Returns
    -------
    mapping of str to list
        The summaries as columns, None where a row has no such number, and the axes that a summary lacks.
    """
    import numpy as np

    grouped: dict[tuple[Any, ...], dict[int, list[int]]] = {}
    for position, point in enumerate(points):
        key = tuple((name, id(value)) for name, value in point.items() if name != "batch")
        grouped.setdefault(key, {}).setdefault(point.get("batch", 1), []).append(position)
    found: dict[str, list[Any]] = {}
    loaded = Loaded()
    for of in grouped.values():
        batches = sorted(of)
        settings = {n: v for n, v in points[of[batches[0]][0]].items() if n != "batch"}
        group = Group(settings, np.array(batches), np.arange(len(batches)))
        for places, columns in rows_of(group, loaded):
            for name, values in columns.items():
                column = found.setdefault(name, [None] * len(points))
                for place, value in zip(places, values):
                    for position in of[batches[place]]:
                        column[position] = value
    return found


def columns_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Rows as columns of plain numbers and texts."""
    return {name: [_plain(v) for v in values] for name, values in _table(rows).items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, int | float | str):
        return value
    return value.item() if hasattr(value, "item") else str(value)


def keys_of(space: Space) -> list[bytes]:
    """Hash of everything that each point of a space depends on, beside the model version."""
    import numpy as np

    steps = space.steps_of(np.arange(len(space)))
    columns = []
    for name in sorted(space.axes):
        tokens = [_token(name, value) for value in space.axes[name]]
        at = steps[space.dimension_of(name)]
        columns.append([tokens[s] for s in at.tolist()])
    digest = hashlib.blake2b
    return [digest(b"|".join(texts), digest_size=16).digest() for texts in zip(*columns)]


def _token(name: str, value: Any) -> bytes:
    """What one value of an axis stands for: the content of devices and models, not their names alone."""
    if name == "hardware":
        content = load_hardware(value).hash
    elif name == "workload":
        content = _model_hash(value)
    elif name == "arrivals":
        content = served.content_of(value)
    else:
        content = json.dumps(value, sort_keys=True, default=repr)
    return f"{name}={content}".encode()


def _model_hash(value: Any) -> str:
    if hasattr(value, "hash"):
        return str(value.hash)
    path = workload_file(value)
    return f"{path.stem}:{hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}"
