"""What to cite for a result: the sources of its hardware and its model, and accelsim, as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from accelsim.core.catalog import catalog
from accelsim.core.errors import RequestError
from accelsim.core.paths import data_folder
from accelsim.core.quantity import Quantity
from accelsim.core.yamlfile import read_yaml
from accelsim.engine.result import Result
from accelsim.hardware.spec import load_hardware
from accelsim.hardware.stacks import stacks
from accelsim.workload.load import load_workload

_LINKS = {
    "doi": re.compile(r"\bdoi:\s*(10\.\d{4,}/[^\s,;)]+)"),
    "eprint": re.compile(r"\barXiv:\s*(\d{4}\.\d{4,5})"),
    "url": re.compile(r"\b((?:https?://)?(?:[\w-]+\.)+(?:com|org|edu|io|net)/[^\s,;:)]+)"),
}
_KEY = re.compile(r"[^\w.-]+")
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {c: f"\\{c}" for c in "{}%&#_$"}


def citations(result: Result) -> str:
    """BibTeX of what a result rests on.

    An entry for accelsim, for the model, for its accuracy, and for each source of numbers of the hardware
    that were cited or measured; what is assumed has nothing to cite. A source is the title of its entry,
    whole; a DOI, an arXiv number and an address in it have fields of their own.

    Parameters
    ----------
    result : Result

    Returns
    -------
    str

    Raises
    ------
    RequestError
        Not a result; or one that was read from a file, of hardware that was in none.
    """
    if not isinstance(result, Result):
        raise RequestError(f"{type(result).__name__} has no sources", hint="give a result of simulate")
    device = _device(result)
    sources = {"model": _model_source(result), "accuracy": result.summary["accuracy_source"]}
    entries = [_software()]
    for what, source in sources.items():
        if source and source != "unknown":
            name = str(result.summary["workload"])
            entries.append(
                _entry("misc", f"{name}-{what}", {"title": source, "note": f"The {what} of {name}"})
            )
    numbers: dict[str, list[str]] = {}
    for path, quantity in device.quantities.items():
        if _used(path, quantity, result, device.link):
            numbers.setdefault(quantity.source, []).append(path)
    for index, (source, paths) in enumerate(numbers.items(), 1):
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        note = f"Numbers of {device.name}: {', '.join(paths[:3])}{more}"
        entries.append(_entry("misc", f"{device.name}-{index}", {"title": source, "note": note}))
    return "\n\n".join(entries)


def _device(result: Result) -> Any:
    if result.programs:
        return result.programs[0].device
    if result.arguments["hardware"] is None:
        raise RequestError(
            "the hardware of this result was in no file", hint="cite the result that simulate gave"
        )
    return load_hardware(result.arguments["hardware"])


def _model_source(result: Result) -> str:
    """What the file of a model names; empty for a graph or an imported model."""
    if result.programs:
        return str(result.programs[0].graph.metadata.get("source", ""))
    name = result.arguments["workload"]
    return str(load_workload(name).metadata.get("source", "")) if name in catalog("workloads") else ""


def _used(path: str, quantity: Quantity, result: Result, link: Any) -> bool:
    """Whether a number is evidence that this result rests on: not of other stacks, links or prices."""
    parts = path.split(".")
    if quantity.status == "assumed" or (parts[0] == "cost" and parts[1] != "hourly"):
        return False
    if parts[0] == "link" and "devices" not in result.summary:
        return False
    if parts[:2] == ["kernels", "collective"]:
        return "devices" in result.summary and link is not None and link.type in parts
    return not set(parts) & (stacks().keys() - {result.summary.get("stack")})


def _software() -> str:
    """accelsim, as its CITATION.cff has it."""
    cff = read_yaml(data_folder("docs").parent / "CITATION.cff")
    return _entry(
        "software",
        "accelsim",
        {
            "author": " and ".join(author["name"] for author in cff["authors"]),
            "title": cff["title"],
            "version": str(cff["version"]),
            "date": str(cff["date-released"]),
        },
    )


def _entry(kind: str, key: str, fields: Mapping[str, str]) -> str:
    """A BibTeX entry; links that a title names become fields."""
    found = {}
    for name, link in _LINKS.items():
        if match := link.search(fields["title"]):
            found[name] = match[1].rstrip(".")
    if "url" in found and "://" not in found["url"]:
        found["url"] = f"https://{found['url']}"
    if "eprint" in found:
        found["eprinttype"] = "arXiv"
    held = {name: f"{{{''.join(_SPECIAL.get(c, c) for c in text)}}}" for name, text in fields.items()} | found
    lines = [f"  {name} = {{{text}}}," for name, text in held.items()]
    return "\n".join((f"@{kind}{{{_KEY.sub('-', key).strip('-')},", *lines, "}"))
