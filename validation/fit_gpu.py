"""Fit the kernel constants that ship in ``hwconfigs/gpu`` on measured training rows, and write them there.

python validation/fit_gpu.py _ampere                                # every kernel of a file
python validation/fit_gpu.py _hopper --only attention/trtllm moe    # some of them
python validation/fit_gpu.py _ada --dry                             # scores alone

Needs the extra 'validation'. No held-out row is read: a fifth of the training rows' shape groups (another
fold of the same rule) decides whether constants are better than those in the file, and all training rows fit
those that are. The same rows and seed give the same constants.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from accelsim.calibration import constants as C
from accelsim.calibration.families import Case, fit_constants, fit_section, owners, sensitive
from accelsim.calibration.files import fields, section_text, with_section
from accelsim.calibration.rows import Sample
from accelsim.calibration.splits import held_out
from accelsim.core.files import write_whole
from accelsim.core.paths import data_folder
from accelsim.hardware.spec import load_hardware
from accelsim.validate import aiconfigurator

if TYPE_CHECKING:
    import pandas as pd

FILES = {
    "_ampere": ("a100-sxm",),
    "_hopper": ("h100-sxm",),
    "h200-sxm": ("h200-sxm",),
    "_ada": ("l40s",),
    "_blackwell": ("b200",),
    "_blackwell-rtx": ("rtx-pro-6000",),
}
"""File to the device whose rows its constants are fitted on."""
SHARED = {"_hopper": ("h100-sxm", "h200-sxm"), "_blackwell": ("b200", "b300", "gb200", "gb300")}
"""Devices that share a file's constants of attention and expert layers."""
MOST = 25_000
"""Rows of a table that are looked at; a seeded sample."""
INNER = "shaping|"
"""Salt of the fold of training rows that decides whether constants are better."""
RULES = {"product": "n|k", "formats": "n|k", "moe": "hidden|intermediate|experts|topk"}
RULES["attention"] = "heads|kv_heads|head_dim|window"
LOADERS = {
    "product": (aiconfigurator.truth_gemm,),
    "formats": (aiconfigurator.gemm,),
    "attention": (aiconfigurator.attention_prefill, aiconfigurator.attention_decode, aiconfigurator.mla),
    "moe": (aiconfigurator.moe,),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", choices=FILES)
    parser.add_argument("--only", nargs="*", default=[], help="kernels, as paths such as attention/vllm")
    parser.add_argument(
        "--add", nargs="*", default=[], help="new kernels, as attention/vllm/decode-64=decode"
    )
    parser.add_argument("--rows", type=int, default=2000, help="rows of each kernel and device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    wanted = [tuple(text.split("/")) for text in options.only]
    for kind in LOADERS:
        if wanted and not any(path[0] == kind for path in wanted):
            continue
        names = FILES[options.file]
        if kind in ("attention", "moe"):
            names = SHARED.get(options.file, names)
        devices = {name: load_hardware(name) for name in names}
        for text in options.add:
            new, like = (tuple(part.split("/")) for part in text.split("="))
            if new[0] == kind:
                for name, device in devices.items():
                    devices[name] = C.with_kernel(device, new, (*new[:-1], *like))
        near = {
            name: [s for s in C.sections(device) if s[0] == kind and _wanted(s, wanted)]
            for name, device in devices.items()
        }
        stacks = {s[1] for found in near.values() for s in found if len(s) > 1}
        samples = {name: Sample.of(rows(name, kind, stacks)) for name in names}
        mine = {name: owners(devices[name], samples[name], near[name]) for name in names}
        for section in sorted({s for found in mine.values() for s in found}):
            cases = [Case(devices[n], samples[n].take(mine[n][section])) for n in names if section in mine[n]]
            started = time.monotonic()
            line, changes = refit(cases, section, options.rows, options.seed)
            sys.stdout.write(f"{'/'.join(section):40}{line} {time.monotonic() - started:.0f} s\n")
            sys.stdout.flush()
            if changes and not options.dry:
                write(options.file, names, C.with_constants(cases[0].device, changes), section)


def _wanted(section: C.Path, wanted: list[tuple[str, ...]]) -> bool:
    return not wanted or any(section[: len(path)] == path for path in wanted)


def rows(device: str, kind: str, stacks: set[str]) -> pd.DataFrame:
    """Training rows of a kind of kernels, of these stacks."""
    import pandas as pd

    parts = []
    for load in LOADERS[kind]:
        frame = load(device)
        if kind == "formats":
            frame = frame[frame["dtype"] != "bfloat16"]
        if kind != "product":
            frame = frame[frame["backend"].isin(stacks)]
        frame = frame[~held_out(frame)]
        text = [c for c in ("op", "precision", "device", "dtype", "backend") if c in frame.columns]
        frame = frame.sample(MOST, random_state=0) if len(frame) > MOST else frame
        parts.append(frame.astype(dict.fromkeys(text, object)))
    return pd.concat(parts, ignore_index=True)


def refit(cases: list[Case], section: C.Path, most: int, seed: int) -> tuple[str, dict[C.Path, float]]:
    """A line about a kernel, and its constants where they are better."""
    inner = [held_out(case.sample.frame, INNER) for case in cases]
    if not all(0.02 < float(fold.mean()) < 0.9 for fold in inner):
        fold_text, tested = "all", cases
        fit = cases
    else:
        fold_text = "inner"
        tested = [Case(c.device, c.sample.take(f)) for c, f in zip(cases, inner)]
        fit = [Case(c.device, c.sample.take(~f)) for c, f in zip(cases, inner)]
    tested, fit, whole = (list(thinned(group, most, seed)) for group in (tested, fit, cases))
    phase = section[-1].split("-")[0] if section[0] == "attention" else ""
    like = [s for s in C.sections(cases[0].device) if s[:2] == section[:2] and s[-1].startswith(phase)]
    found = fit_section(fit, section, seed=seed, like=[s for s in like if s != section])
    before, after = error_pct(tested, {}), error_pct(tested, found)
    count = sum(len(case.sample) for case in whole)
    line = f"{count:6} rows, {fold_text} MAPE {before:6.2f} -> {after:6.2f} %"
    if after >= before:
        return f"{line} kept", {}
    if fit is not cases:
        at = [case.at(found) for case in whole]
        mine = [p for p in C.constants(at[0].device) if p[: len(section)] == section]
        found = found | fit_constants(at, sensitive(at[0], mine))
    return line, found


def thinned(cases: list[Case], most: int, seed: int) -> Iterator[Case]:
    for case in cases:
        yield Case(case.device, case.sample.thinned(max(most // len(cases), 200), seed))


def error_pct(cases: list[Case], values: dict[C.Path, float]) -> float:
    """Mean absolute error of the rows [%], devices counting alike."""
    found = []
    for case in cases:
        ratio = case.at(values).sample.log_ratio(case.at(values).device)
        found.append(float(np.nanmean(np.abs(np.expm1(ratio)))))
    return 100.0 * float(np.mean(found))


def write(file: str, names: tuple[str, ...], device: object, section: C.Path) -> None:
    """Put a kernel's constants into a file."""
    path = data_folder("hwconfigs") / "gpu" / f"{file}.yaml"
    text = path.read_text(encoding="utf-8")
    what = " and ".join(name.upper() for name in names)
    rule = RULES[section[0]]
    source = (
        f'"fitted on {what}, aiconfigurator-core 0.12.0, newest version of each backend, '
        f"rows with sha256('{rule}') mod 5 != 0, 2026-11\""
    )
    evidence = {"status": "measured", "source": source}
    if section == ("product",):
        for name, value in fields(device, section).items():
            text = with_section(text, ("kernels", *section, name), value, evidence)
    else:
        body = section_text(device, section, 2 * len(section))
        text = with_section(text, ("kernels", *section), body, evidence)
    write_whole(path, text)


if __name__ == "__main__":
    main()
