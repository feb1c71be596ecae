"""SCALE-Sim's own input files: configuration, topology (convolutions or products) and layout."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from accelsim.architectures.systolic.scalesim import DATAFLOWS
from accelsim.architectures.systolic.scalesim_layout import BankModel, ScaleSimLayout, read_layout
from accelsim.core.errors import ConfigError, did_you_mean

SPARSE_FORMATS = ("csr", "csc", "ellpack_block")


@dataclass(frozen=True, slots=True)
class ScaleSimConfig:
    """A configuration file.

    Attributes
    ----------
    run_name : str
        Folder of the reports.
    bounded : bool
        ``InterfaceBandwidth = USER``: bandwidth is what the file says, and layers can stall.
    rows, cols : int
        Processing elements.
    ifmap_kb, filter_kb, ofmap_kb : int
        On-chip memory [KiB]; a word is one byte.
    dataflow : str
    read_widths : tuple of int
        What bounds the fetches of inputs and filters: the ``...SRAMBankBandwidth`` of ``[layout]`` [word /
        cycle].
    write_width : int
        ``Bandwidth``, which bounds the outputs alone [word / cycle].
    sparse : str
        Compression format of N:M sparse filters; empty when sparsity is off.
    block, seed : int
        Row-wise sparsity: each filter keeps a number of its own of every `block` products, drawn from this
        seed. A block of 0 is layer-wise sparsity, where the topology gives N:M.
    """

    run_name: str
    bounded: bool
    rows: int
    cols: int
    ifmap_kb: int
    filter_kb: int
    ofmap_kb: int
    dataflow: str
    read_widths: tuple[int, int]
    write_width: int
    sparse: str
    block: int = 0
    seed: int = 0
    layouts: tuple[BankModel | None, BankModel | None] = (None, None)


@dataclass(frozen=True, slots=True)
class ScaleSimLayer:
    """A row of a topology file; a product (m, n, k) is an m x k image, one 1 x k window per row."""

    name: str
    height: int
    width: int
    kernel_h: int
    kernel_w: int
    channels: int
    filters: int
    stride: int
    keep: int
    block: int

    @property
    def out_h(self) -> int:
        """Windows down the image; a partial last one counts."""
        return -(-(self.height - self.kernel_h + self.stride) // self.stride)

    @property
    def out_w(self) -> int:
        return -(-(self.width - self.kernel_w + self.stride) // self.stride)

    @property
    def image(self) -> tuple[int, ...]:
        """What `demand.last_request` reads of a layer."""
        return (
            self.height, self.width, self.kernel_h, self.kernel_w, self.channels, self.stride, self.out_w,
            self.keep, self.block,
        )  # fmt: skip

    @property
    def window(self) -> int:
        """Products of one output."""
        return self.kernel_h * self.kernel_w * self.channels


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"cannot read the file ({reason})", str(path)) from None


class _Section:
    """One section of a configuration file; errors name file, section and key."""

    def __init__(self, parser: configparser.RawConfigParser, name: str, path: Path) -> None:
        if not parser.has_section(name):
            raise ConfigError(f"the section [{name}] is missing", str(path))
        self.values, self.where = parser[name], f"{path}: [{name}]"

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if value is None:
            raise ConfigError(f"'{key}' is missing", self.where)
        return value.strip()

    def count(self, key: str) -> int:
        return _count(self.text(key), f"{self.where} {key}")

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in known:
            raise ConfigError(f"'{value}' is not valid", f"{self.where} {key}", did_you_mean(value, known))
        return value

    def flag(self, key: str) -> bool:
        return self.text(key).lower() in ("true", "yes", "on", "1")


def _count(text: str, where: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ConfigError(f"'{text}' is not a whole number", where) from None
    if value < 1:
        raise ConfigError(f"'{text}' must be 1 or more", where)
    return value


def read_config(path: Path) -> ScaleSimConfig:
    """Read a configuration file.

    Raises
    ------
    ConfigError
        A section or key is missing, a number is not a positive whole one, or the file asks for what is not
        modelled (Ramulator traces), or the tool itself fails on it.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(_text(path))
    except configparser.Error as error:
        raise ConfigError(f"not a configuration file ({error.message.splitlines()[0]})", str(path)) from None
    general, presets = _Section(parser, "general", path), _Section(parser, "run_presets", path)
    chip, layout = _Section(parser, "architecture_presets", path), _Section(parser, "layout", path)
    sparsity = _Section(parser, "sparsity", path)
    bounded = presets.choice("InterfaceBandwidth", ("USER", "CALC")) == "USER"
    if presets.flag("UseRamulatorTrace"):
        raise ConfigError(
            "Ramulator traces are not modelled",
            f"{path}: [run_presets] UseRamulatorTrace",
            "set it to False: bandwidth then bounds the transfers",
        )
    layouts = (_banks("Ifmap", layout, chip), _banks("Filter", layout, chip)) if bounded else (None, None)
    rows, cols = chip.count("ArrayHeight"), chip.count("ArrayWidth")
    write_width = cols
    if bounded:
        write_width = _count(
            chip.text("Bandwidth").split(",")[0].strip(), f"{path}: [architecture_presets] Bandwidth"
        )
    sparse, block, seed = "", 0, 0
    dataflow = chip.choice("Dataflow", DATAFLOWS)
    if sparsity.flag("SparsitySupport"):
        sparse = sparsity.choice("SparseRep", SPARSE_FORMATS)
        row_wise = sparsity.flag("OptimizedMapping")
        if (bounded or row_wise) and chip.text("FilterOffset") == "0":
            raise ConfigError(
                "sparse filters need an offset above 0",
                f"{chip.where} FilterOffset",
                "the tool takes address 0 for a zero weight",
            )
        if row_wise:
            block, seed = _row_wise(sparsity, chip, rows, dataflow)
    return ScaleSimConfig(
        general.text("run_name"),
        bounded,
        rows,
        cols,
        chip.count("ifmapsramszkB"),
        chip.count("filtersramszkB"),
        chip.count("ofmapsramszkB"),
        dataflow,
        (layout.count("IfmapSRAMBankBandwidth"), layout.count("FilterSRAMBankBandwidth")),
        write_width,
        sparse,
        block,
        seed,
        layouts,
    )


def _banks(side: str, layout: _Section, chip: _Section) -> BankModel | None:
    """Banks of one operand's custom layout, None for the default one."""
    width, banks = layout.count(f"{side}SRAMBankBandwidth"), layout.count(f"{side}SRAMBankNum")
    where = f"{layout.where} {side}SRAMBankNum"
    if width % banks:
        raise ConfigError(f"{banks} banks do not divide a bandwidth of {width}", where)
    if not layout.flag(f"{side}CustomLayout"):
        return None
    offset = chip.text(f"{side}Offset")
    if not offset.isdigit():
        raise ConfigError(f"'{offset}' is not a whole number", f"{chip.where} {side}Offset")
    if side == "Ifmap" and int(offset):
        raise ConfigError(
            "a custom layout of inputs needs an offset of 0",
            f"{chip.where} IfmapOffset",
            "the tool leaves it out of the layout and never finds the words",
        )
    return BankModel(banks, layout.count(f"{side}SRAMBankPort"), int(offset))


def _row_wise(sparsity: _Section, chip: _Section, rows: int, dataflow: str) -> tuple[int, int]:
    """Block and seed of row-wise sparsity, where the tool can run it."""
    block = sparsity.count("BlockSize")
    where = f"{sparsity.where} BlockSize"
    if dataflow != "ws":
        raise ConfigError(
            f"row-wise sparsity needs Dataflow ws, not {dataflow}",
            f"{sparsity.where} OptimizedMapping",
            "SCALE-Sim stops with 'Dimension mismatch between operands' here",
        )
    if block < 2 or block > rows or 2 * rows % block:
        raise ConfigError(
            f"the tool cannot use a block of {block} on {rows} rows",
            where,
            "take 2 or more, at most the rows, that divides twice the rows",
        )
    seed = sparsity.text("RandomNumberGeneratorSeed")
    if not seed.isdigit() or int(seed) >= 2**32:
        raise ConfigError(
            f"'{seed}' is not a whole number below 2^32", f"{sparsity.where} RandomNumberGeneratorSeed"
        )
    return block, int(seed)


_CONV = ("IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "filters", "stride")
_GEMM = ("M", "N", "K")


def read_topology(path: Path, gemm: bool | None = None) -> tuple[ScaleSimLayer, ...]:
    """Read a topology file; its first line is a header, a line may end in a comma.

    Parameters
    ----------
    path : Path
    gemm : bool, optional
        Rows are products (name, M, N, K) rather than convolutions. By default the header decides.

    Raises
    ------
    ConfigError
        A row has too few or too many columns, a size is not a positive whole number, or a filter is larger
        than the image. The message names the line.
    """
    lines = _text(path).splitlines()
    if gemm is None:
        header = [cell.strip().lower() for cell in lines[0].split(",")] if lines else []
        gemm = header[1:4] == ["m", "n", "k"]
    layers: list[ScaleSimLayer] = []
    for number, line in enumerate(lines[1:], 2):
        if line and not line.isspace():
            layers.extend(_layers(line, f"{path}:{number}", gemm))
    if not layers:
        raise ConfigError("the file has no layers", str(path), "the first line is a header")
    return tuple(layers)


def _layers(line: str, where: str, gemm: bool) -> list[ScaleSimLayer]:
    names = _GEMM if gemm else _CONV
    cells = [cell.strip() for cell in line.split(",")]
    if not cells[-1]:
        cells.pop()
    if len(cells) - 1 - len(names) not in (0, 1):
        raise ConfigError(
            f"{len(cells)} columns, expected a name, {', '.join(names)} and at most a sparsity N:M", where
        )
    try:
        sizes = [int(cell) for cell in cells[1 : len(names) + 1]]
    except ValueError:
        sizes = [_count(cell, f"{where} ({name})") for name, cell in zip(names, cells[1:])]
    if min(sizes) < 1:
        sizes = [_count(cell, f"{where} ({name})") for name, cell in zip(names, cells[1:])]
    keep, block = _ratio(cells[-1], where) if len(cells) == len(names) + 2 else (1, 1)
    if gemm:
        m, n, k = sizes
        return [ScaleSimLayer(cells[0], m, k, 1, k, 1, n, 1, keep, block)]
    height, width, kernel_h, kernel_w, channels, filters, stride = sizes
    if kernel_h > height or kernel_w > width:
        raise ConfigError(
            f"the filter ({kernel_h}x{kernel_w}) is larger than the image ({height}x{width})", where
        )
    if "DP" in cells[0]:
        # The tool runs a depthwise layer as one single-channel layer per channel.
        return [
            ScaleSimLayer(
                f"{cells[0]}Channel_{i}", height, width, kernel_h, kernel_w, 1, filters, stride, keep, block
            )
            for i in range(channels)
        ]
    return [
        ScaleSimLayer(cells[0], height, width, kernel_h, kernel_w, channels, filters, stride, keep, block)
    ]


def _ratio(text: str, where: str) -> tuple[int, int]:
    parts = text.split(":")
    if len(parts) != 2:
        raise ConfigError(f"'{text}' is not a sparsity such as 2:4", where)
    keep, block = (_count(part.strip(), where) for part in parts)
    if keep > block:
        raise ConfigError(f"a sparsity of {text} keeps more than all", where)
    return keep, block


def layout_of(path: Path | None, config: ScaleSimConfig) -> ScaleSimLayout | None:
    """The layout that a configuration uses, None where it uses the default ones of both operands.

    Raises
    ------
    ConfigError
        The file is needed and not given, or malformed.
    """
    if not any(config.layouts):
        if path is not None:
            check_layout(path)
        return None
    if path is None:
        raise ConfigError("the custom layout has no file", "layout", "name it with -l")
    inputs, filters = (width if model else None for width, model in zip(config.read_widths, config.layouts))
    return read_layout(path, _text(path), (inputs, filters))


def check_layout(path: Path) -> None:
    """Check a layout file that is not used: a name and whole numbers for each layer."""
    lines = _text(path).splitlines()
    found = 0
    for number, line in enumerate(lines[1:], 2):
        cells = [cell.strip() for cell in line.split(",")]
        if not any(cells):
            continue
        if not cells[-1]:
            cells.pop()
        found += 1
        for cell in cells[1:]:
            if not cell.lstrip("-").isdigit():
                raise ConfigError(f"'{cell}' is not a whole number", f"{path}:{number}")
    if not found:
        raise ConfigError("the file has no layers", str(path), "the first line is a header")
