"""BibTeX of a result names the sources of its files, and only those that it used."""

from __future__ import annotations

import re

import pytest

import accelsim as ax
from accelsim.core.errors import RequestError


def entries(text):
    """Fields of each entry by key; every brace that opens closes."""
    plain = text.replace("\\{", "").replace("\\}", "")
    assert plain.count("{") == plain.count("}")
    found = {}
    for block in text.split("\n\n"):
        kind, key = re.match(r"@(\w+)\{([\w.-]+),\n", block).groups()
        assert block.endswith("\n}")
        found[key] = {"kind": kind, **dict(re.findall(r"^  (\w+) = \{(.*)\},$", block, re.M))}
    assert len(found) == text.count("\n\n") + 1
    return found


def test_a_result_cites_its_model_its_accuracy_its_hardware_and_accelsim():
    result = ax.simulate("resnet50", "h100-sxm", precision="int8")
    found = entries(ax.citations(result))
    assert found["accelsim"]["kind"] == "software"
    assert found["accelsim"]["version"] == f"{{{ax.__version__}}}"
    assert found["resnet50-model"]["doi"] == "10.1109/CVPR.2016.90"
    assert "torchvision" in found["resnet50-accuracy"]["title"]
    used = [f["title"] for key, f in found.items() if key.startswith("h100-sxm-")]
    device = ax.load_hardware("h100-sxm")
    assert f"{{{device.quantities['memory.bandwidth'].source}}}".replace("_", r"\_") in used
    assert not any("vLLM" in title or "collectives" in title for title in used)


def test_another_stack_and_several_devices_bring_their_sources():
    settings = {"devices": 2, "phase": "decode", "context": 64, "stack": "vllm"}
    titles = [
        f["title"]
        for f in entries(ax.citations(ax.simulate("llama-3.1-8b", "h100-sxm", **settings))).values()
    ]
    assert any("vLLM" in title for title in titles)
    assert not any("SGLang" in title for title in titles)
    assert sum("collectives" in title for title in titles) == 1


def test_addresses_become_fields():
    found = entries(ax.citations(ax.simulate("resnet50", "tpu-v4", precision="int8")))
    assert {f["url"] for f in found.values() if "url" in f} == {"https://cloud.google.com/tpu/docs/v4"}
    assert (
        entries(ax.citations(ax.simulate("mobilenet-v1", "t4")))["mobilenet-v1-model"]["eprint"]
        == "1704.04861"
    )


def test_a_result_from_a_file_cites_the_same(tmp_path):
    result = ax.simulate("resnet50", "tpu-v4")
    assert ax.citations(ax.Result.load(result.save(tmp_path / "a.json"))) == ax.citations(result)
    mine = ax.simulate("resnet50", ax.load_hardware("tpu-v4").replace(**{"memory.bandwidth": "2 TB/s"}))
    assert "tpu-v4-memory.bandwidth-2-TB-s" in ax.citations(mine)
    with pytest.raises(RequestError, match="was in no file"):
        ax.citations(ax.Result.load(mine.save(tmp_path / "b.json")))


def test_only_results_have_sources():
    with pytest.raises(RequestError, match="Infeasible has no sources"):
        ax.citations(ax.simulate("llama-3.1-70b", "t4"))
