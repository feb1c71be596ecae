"""Kernels other than products are fitted from the rows that they decide, choices of the library included."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

import accelsim as ax
from accelsim.calibration import constants as C
from accelsim.calibration.families import Case, fit_section, owners
from accelsim.calibration.files import section_text, with_section
from accelsim.calibration.optimise import robust
from accelsim.calibration.rows import Sample
from accelsim.core.errors import ConfigError
from accelsim.hardware.spec import load_hardware

DECODE = ("attention", "vllm", "decode")
EVIDENCE = {"status": "measured", "source": '"rows"'}


def _rows() -> pd.DataFrame:
    """A few rows of each kind of kernel."""
    rng = np.random.default_rng(0)
    heads = {"op": "attention_decode", "precision": "bf16", "head_dim": 128, "seq_q": 1, "backend": "vllm"}
    decode = [
        {**heads, "heads": 8 * g, "kv_heads": 8, "batch": 2.0**b, "seq_kv": 2.0**s}
        for g in (2, 4, 8)
        for b in range(8)
        for s in range(4, 15)
    ]
    sizes = 2.0 ** rng.integers(4, 13, (60, 3))
    product = pd.DataFrame({"op": "gemm", "precision": "bf16", "backend": ""}, index=range(60))
    narrow = product.assign(precision="int8", backend="trtllm")
    layer = {"op": "moe", "precision": "bf16", "backend": "vllm", "hidden": 2048, "intermediate": 1024}
    experts = [{**layer, "experts": 64, "topk": 8, "tokens": 2.0**t} for t in range(12)]
    matrices = [frame.assign(m=sizes[:, 0], n=sizes[:, 1], k=sizes[:, 2]) for frame in (product, narrow)]
    return pd.concat([*matrices, pd.DataFrame(decode), pd.DataFrame(experts)], ignore_index=True)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return _rows().assign(latency_s=1e-3)


def test_each_row_has_one_kernel(rows: pd.DataFrame) -> None:
    device = load_hardware("a100-sxm")
    found = owners(device, Sample.of(rows))
    assert {s[:2] for s in found} == {
        ("product",),
        ("formats", "trtllm"),
        ("attention", "vllm"),
        ("moe", "vllm"),
    }
    every = np.concatenate(list(found.values()))
    assert len(every) == len(set(every.tolist())) == len(rows)
    ops = rows["op"].to_numpy()
    assert set(ops[found[("product",)]]) == {"gemm"}
    assert set(rows["precision"].to_numpy()[found[("formats", "trtllm", "int8")]]) == {"int8"}
    assert set(ops[found[DECODE]]) == {"attention_decode"}


def test_constants_and_choices_of_a_library_are_found_again(rows: pd.DataFrame) -> None:
    device = load_hardware("a100-sxm")
    held = {path[-1]: value for path, value in C.constants(device).items() if path[:3] == DECODE}
    truth = {(*DECODE, "fixed_s"): 1.5 * held["fixed_s"], (*DECODE, "split_fill"): 1.0}
    assert C.value(device, (*DECODE, "split_fill")) != 1.0
    real = C.with_constants(device, truth)
    part = rows[rows["op"] == "attention_decode"]
    sample = Sample.of(part)
    exact = np.exp(sample.log_ratio(real)) * part["latency_s"].to_numpy()
    noise = np.exp(np.random.default_rng(1).normal(0.0, 0.02, len(part)))
    case = Case(device, Sample.of(part.assign(latency_s=exact * noise)))
    found = fit_section([case], DECODE)
    assert found[(*DECODE, "split_fill")] == 1.0
    again = C.with_constants(device, found)
    assert robust(np.log(exact / (np.exp(sample.log_ratio(again)) * 1e-3))) < 0.02
    assert found == fit_section([case], DECODE)


def test_a_new_kernel_starts_like_another() -> None:
    device = load_hardware("h100-sxm")
    more = C.with_kernel(device, ("formats", "mine", "int8"), ("formats", "vllm", "fp8_e4m3"))
    assert more.kernels.formats["mine"]["int8"] is device.kernels.formats["vllm"]["fp8_e4m3"]
    assert set(C.sections(more)) - set(C.sections(device)) == {("formats", "mine", "int8")}


def test_unmeasured_devices_take_the_means_of_others() -> None:
    device, *others = (load_hardware(name) for name in ("a100-sxm", "h100-sxm", "l40s"))
    taken = C.transferred(device, others)
    path = ("product", "epilogue_cycles")
    held = [C.value(other, path) for other in others]
    assert taken[path] == pytest.approx(np.sqrt(held[0] * held[1]))  # half and twice its rate: alike
    assert taken["product", "l2_share"] == C.value(others[0], ("product", "l2_share"))  # HBM as well
    assert taken["product", "tile_costs", "3"] != C.value(device, ("product", "tile_costs", "3"))
    near = C.transferred(load_hardware("rtx-pro-6000"), others)
    weight = np.exp([-2.0, 0.0]) / np.exp([-2.0, 0.0]).sum()
    assert near[path] == pytest.approx(np.exp(weight @ np.log(held)))
    choice = ("attention", "vllm", "decode", "tile")
    assert near[choice] == C.value(others[1], choice)
    moved = C.with_constants(device, taken)
    assert C.transferred(moved, others) == taken


def test_numbers_of_a_list_are_constants_of_their_own() -> None:
    device = load_hardware("a100-sxm")
    path = ("product", "tile_costs", "4")
    assert C.limits(device, path)[0] == 1.0
    changed = C.with_constants(device, {path: 2.5})
    costs = changed.kernels.product.tile_costs
    assert costs[4] == 2.5
    assert costs[:4] == device.kernels.product.tile_costs[:4]
    assert C.whole(device, {path: 2.5}) == {path[:2]: costs}


@pytest.mark.parametrize("section", [DECODE, ("moe", "vllm", "bf16"), ("formats", "trtllm", "int8")])
def test_constants_are_written_in_place(section: C.Path) -> None:
    device = load_hardware("a100-sxm")
    text = "kind: gpu\nkernels:  # constants\n  product:\n    overlap: 2\n  moe:\n    x: 1\n# end\n"
    body = section_text(device, section, 2 * len(section))
    assert max(map(len, body.splitlines())) < 110
    once = with_section(text, ("kernels", *section), body, EVIDENCE)
    twice = with_section(once, ("kernels", *section), body, EVIDENCE)
    assert once == twice
    document = yaml.safe_load(once)["kernels"]
    assert document["product"] == {"overlap": 2}
    assert document["moe"]["x"] == 1
    found = document[section[0]][section[1]]
    assert found["source"] == "rows"
    assert once.startswith("kind: gpu\nkernels:  # constants\n")
    for name, value in found[section[2]].items():
        if isinstance(value, int | float):
            field = next(
                f for f, i in type(C.value_at(device, section)).model_fields.items() if (i.alias or f) == name
            )
            assert value == pytest.approx(C.value(device, (*section, field)), rel=1e-3)
    with pytest.raises(ConfigError):
        with_section(text, ("other", "x"), body, EVIDENCE)


def test_calibration_fits_a_narrow_format(rows: pd.DataFrame) -> None:
    part = rows[rows["precision"] == "int8"]
    frame = part.drop(columns="latency_s")
    slow = 1.3 * ax.predict_ops(frame.drop(columns="backend"), "a100-sxm", stack="trtllm")["latency_s"]
    found = ax.calibrate("a100-sxm", part.assign(latency_s=slow.to_numpy()))
    assert {c["parameter"].split(".")[1] for c in found.constants} == {"formats"}
    assert found.errors[0]["after_median_ape_pct"] < 0.6 * found.errors[0]["before_median_ape_pct"]
