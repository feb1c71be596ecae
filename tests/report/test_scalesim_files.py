"""SCALE-Sim's files: what is read, what is written, and what bad files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelsim.core.errors import ConfigError
from accelsim.report.scalesim import scalesim_run

CONFIG = """[general]
run_name = r
[architecture_presets]
ArrayHeight = 16
ArrayWidth = 4
IfmapSramSzkB = 1
FilterSramSzkB = 1
OfmapSramSzkB = 1
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = ws
Bandwidth = 4
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 4
IfmapSRAMBankNum = 1
FilterCustomLayout = False
FilterSRAMBankBandwidth = 4
FilterSRAMBankNum = 1
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
[run_presets]
InterfaceBandwidth = USER
UseRamulatorTrace = False
"""
CONV = """name, h, w, fh, fw, c, n, s, sparsity,
Conv1, 14, 14, 3, 3, 8, 10, 1, 1:1,
Conv2, 15, 13, 3, 3, 4, 6, 2,
"""

# What SCALE-Sim 3.0.0 writes for these files.
COMPUTE = (
    "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, "
    "Mapping Efficiency %, Compute Util %,\n"
    "0, 23558, 23321, 20652, 6.94652887955062, 75.0, 59.66850828729282,\n"
    "1, 958, 769, 314, 18.433029908972692, 56.25, 29.90506329113924,\n"
)
BANDWIDTH_1 = (
    "1, 3.932379713914174, 0.2808842652795839, 0.9830949284785435, "
    "3.9741267787839587, 4.0, 1.7900943396226414,"
)
DETAIL_0 = (
    "0, 17.0, 23311.0, 31104, 1.0, 23032.0, 720, 31.0, 23319.0, 7200, "
    "-128.0, 23219.0, 92672, -128.0, 128.0, 1024, 546.0, 23430.0, 7203,"
)


@pytest.fixture
def files(tmp_path: Path):
    def write(config: str = CONFIG, topology: str = CONV) -> dict[str, Path]:
        (tmp_path / "c.cfg").write_text(config)
        (tmp_path / "t.csv").write_text(topology)
        return scalesim_run(tmp_path / "c.cfg", tmp_path / "t.csv", None, tmp_path / "out")

    return write


def test_reports_are_the_tools_text(files) -> None:
    written = files()
    assert written["COMPUTE_REPORT"].read_text() == COMPUTE
    assert written["BANDWIDTH_REPORT"].read_text().splitlines()[2] == BANDWIDTH_1
    assert written["DETAILED_ACCESS_REPORT"].read_text().splitlines()[1] == DETAIL_0
    assert written["COMPUTE_REPORT"].parent.name == "r"


def test_gemm_headers_and_depthwise_rows(files) -> None:
    gemm = files(topology="Layer, M, N, K,\nG, 8, 8, 8,\n")["COMPUTE_REPORT"].read_text().splitlines()
    # Two column folds of 2 * 16 + 4 + 8 - 2 cycles, counted from zero.
    assert int(gemm[1].split(", ")[2]) - int(gemm[1].split(", ")[3]) == 83
    depthwise = files(topology="name,\nDP1, 8, 8, 3, 3, 5, 1, 1,\n")["COMPUTE_REPORT"].read_text()
    assert len(depthwise.splitlines()) == 1 + 5


def test_sparsity_writes_its_report(files) -> None:
    sparse = CONFIG.replace("SparsitySupport = false", "SparsitySupport = true")
    written = files(sparse, "Layer, M, N, K, Sparsity,\nG, 8, 8, 8, 2:4,\n")
    row = written["SPARSE_REPORT"].read_text().splitlines()[1].split(", ")
    # 4 of 8 products kept for 8 filters, 2 bits of position each in 32-bit words.
    assert row[1:5] == ["ellpack_block", "64", "34.0", "2.0"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[layout]", "[layouts]", r"c.cfg: the section \[layout\] is missing"),
        ("ArrayHeight = 16", "", r"\[architecture_presets\]: 'ArrayHeight' is missing"),
        ("ArrayHeight = 16", "ArrayHeight = 0", "ArrayHeight: '0' must be 1 or more"),
        ("ArrayHeight = 16", "ArrayHeight = 1.5", "ArrayHeight: '1.5' is not a whole number"),
        ("Dataflow = ws", "Dataflow = rs", "Dataflow: 'rs' is not valid; did you mean"),
        ("UseRamulatorTrace = False", "UseRamulatorTrace = True", "Ramulator traces are not modelled"),
        (
            "IfmapCustomLayout = False",
            "IfmapCustomLayout = True",
            r"\[layout\]: 'IfmapSRAMBankPort' is missing",
        ),
        ("FilterCustomLayout = False", "FilterCustomLayout = True\nFilterSRAMBankPort = 1", "has no file"),
        ("IfmapSRAMBankNum = 1", "IfmapSRAMBankNum = 3", "3 banks do not divide a bandwidth of 4"),
        ("InterfaceBandwidth = USER", "InterfaceBandwidth = FAST", "'FAST' is not valid"),
        ("[general]", "general", "not a configuration file"),
    ],
)
def test_bad_configurations_say_where(files, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        files(CONFIG.replace(old, new))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("A, 2, 2, 3, 3, 1, 1, 1,", r"t.csv:2: the filter \(3x3\) is larger than the image \(2x2\)"),
        ("A, 8, 8, 3, 3, 0, 1, 1,", r"t.csv:2 \(channels\): '0' must be 1 or more"),
        ("A, 8, 8, 3, x, 1, 1, 1,", r"t.csv:2 \(filter width\): 'x' is not a whole number"),
        ("A, 8, 8, 3,", "t.csv:2: 4 columns, expected a name"),
        ("A, 8, 8, 3, 3, 1, 1, 1, 1:1, 9,", "t.csv:2: 10 columns"),
        ("A, 8, 8, 3, 3, 1, 1, 1, half,", "'half' is not a sparsity such as 2:4"),
        ("A, 8, 8, 3, 3, 1, 1, 1, 4:2,", "keeps more than all"),
        ("", "the file has no layers"),
    ],
)
def test_bad_topologies_name_the_line(files, row: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        files(topology=f"header\n{row}\n")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the file"):
        scalesim_run(tmp_path / "no.cfg", tmp_path / "no.csv", None, tmp_path)


ROW_WISE = CONFIG.replace("SparsitySupport = false", "SparsitySupport = true").replace(
    "OptimizedMapping = false", "OptimizedMapping = true\nBlockSize = 8\nRandomNumberGeneratorSeed = 40"
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Dataflow = ws", "Dataflow = os", "row-wise sparsity needs Dataflow ws, not os"),
        ("BlockSize = 8", "BlockSize = 1", "cannot use a block of 1 on 16 rows"),
        ("BlockSize = 8", "BlockSize = 5", "cannot use a block of 5 on 16 rows"),
        ("BlockSize = 8", "BlockSize = 32", "cannot use a block of 32 on 16 rows"),
        ("FilterOffset = 10000000", "FilterOffset = 0", "sparse filters need an offset above 0"),
        ("Seed = 40", "Seed = -1", "'-1' is not a whole number below"),
    ],
)
def test_row_wise_sparsity_that_the_tool_cannot_run(files, old: str, new: str, words: str) -> None:
    assert old in ROW_WISE
    with pytest.raises(ConfigError, match=words):
        files(ROW_WISE.replace(old, new))


CUSTOM = CONFIG.replace(
    "IfmapCustomLayout = False", "IfmapCustomLayout = True\nIfmapSRAMBankPort = 1"
).replace("FilterCustomLayout = False", "FilterCustomLayout = True\nFilterSRAMBankPort = 1")
LAYOUT = "header\nConv1, 2, 1, 1, 1, 2, 2, 3, 4, 5, 0, 1, 2, 4, 5, 6, 7, 0, 1, 2, 3,\n"


def _with_layout(folder: Path, config: str, layout: str) -> dict[str, Path]:
    (folder / "c.cfg").write_text(config)
    (folder / "t.csv").write_text(CONV)
    (folder / "l.csv").write_text(layout)
    return scalesim_run(folder / "c.cfg", folder / "t.csv", folder / "l.csv", folder / "out")


def test_more_ports_and_banks_never_stall_longer(tmp_path: Path) -> None:
    """Conflicts are what a layout adds: a port per line of a row leaves none."""
    stalls = []
    for ports in (1, 2, 4, 16):
        text = CUSTOM.replace("BankPort = 1", f"BankPort = {ports}")
        rows = _with_layout(tmp_path, text, LAYOUT)["COMPUTE_REPORT"].read_text().splitlines()
        stalls.append(int(rows[1].split(", ")[3]))
    assert stalls == sorted(stalls, reverse=True)
    assert stalls[0] > stalls[-1]


@pytest.mark.parametrize(
    ("config", "layout", "words"),
    [
        (CUSTOM.replace("IfmapOffset = 0", "IfmapOffset = 8"), LAYOUT, "needs an offset of 0"),
        (CUSTOM.replace("FilterOffset = 10000000", "FilterOffset = x"), LAYOUT, "'x' is not a whole number"),
        (CUSTOM, "header\n", "the file has no layers"),
        (CUSTOM, LAYOUT.replace(" 3,\n", " 3\n"), "l.csv:2: 19 numbers, expected 20"),
        (CUSTOM, LAYOUT.replace(" 1, 1, 2,", " 1, x, 2,", 1), "l.csv:2: a cell is not a whole number"),
        (CUSTOM, LAYOUT.replace("3, 4, 5, 0", "3, 4, 4, 0"), "orders of inputs do not name each of 6 axes"),
        (CUSTOM, LAYOUT.replace("1, 2, 3,\n", "1, 2, 9,\n"), "orders of filters do not name each of 8 axes"),
        (
            CUSTOM,
            LAYOUT.replace("Conv1, 2", "Conv1, 4"),
            "a block of inputs has 8 words, a line of the buffer 4",
        ),
        (CUSTOM, LAYOUT.replace("Conv1, 2", "Conv1, 0"), "a block of inputs has a side of 0"),
        (
            CUSTOM,
            LAYOUT.replace("2, 2, 3", "2, 1, 3"),
            "a block of filters has 2 words, a line of the buffer 4",
        ),
    ],
)
def test_bad_layouts_say_where(tmp_path: Path, config: str, layout: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _with_layout(tmp_path, config, layout)
