"""What a pipeline consists of: units, the stages that carry them, and the streams between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accelsim.workload.graph import Op, Tensor

UnitKind = Literal[
    "mvau", "vvau", "pool", "channelwise", "global_pool", "row", "reorder", "dma_in", "dma_out"
]
EdgeMode = Literal["stream", "window", "all"]


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window, one-dimensional ones with height 1.

    Attributes
    ----------
    height, width : int
        Input rows and columns without padding [pixel].
    pad_h, pad_w : int
        Padding before the first row and column [pixel].
    extra_h, extra_w : int
        Padding after the last row and column [pixel].
    """

    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_h: int
    pad_w: int
    extra_h: int
    extra_w: int
    out_h: int
    out_w: int

    @property
    def taps(self) -> int:
        return self.kernel_h * self.kernel_w

    @property
    def padded_h(self) -> int:
        return self.height + self.pad_h + self.extra_h

    @property
    def padded_w(self) -> int:
        return self.width + self.pad_w + self.extra_w

    @property
    def bracket(self) -> int:
        """Pixels between the first and the last of one window, both included [pixel]."""
        return (
            (self.kernel_h - 1) * self.dilation_h * self.padded_w + (self.kernel_w - 1) * self.dilation_w + 1
        )

    @property
    def buffer(self) -> int:
        """Pixels that the generator holds: one window and what a stride brings in [pixel]."""
        return self.bracket + self.stride_w + (self.stride_h - 1) * self.padded_w


@dataclass(frozen=True, slots=True)
class Unit:
    """What determines the foldings of a stage and their cost; equal layers share one.

    Attributes
    ----------
    kind : str
        ``mvau`` matrix-vector, ``vvau`` depthwise, ``pool``, ``channelwise`` (add, thresholds),
        ``global_pool``, ``row`` (softmax, layer norm), ``reorder`` (transpose: holds a frame), ``dma_in``,
        ``dma_out``.
    mw, mh : int
        Matrix width (reduction) and height (output channels); for other kinds `mh` is the channels that PE
        folds.
    pixels : int
        Output pixels per frame.
    rounds : int
        Times that each pixel passes through (groups of a grouped convolution, steps of one direction).
    channels : int
        Input channels, which the sliding window folds.
    weights : int
        Weights that the unit holds [elements].
    weight_bits, act_bits, out_bits : int
        Widths of weights, inputs and outputs [bit].
    requantised : bool
        Thresholds or a requantiser stand behind the unit.
    dynamic : bool
        The weights are an activation that arrives anew with every frame, so they are held twice.
    pixels_in : int
        Input pixels per frame.
    feedback : int
        Cycles that each pixel waits for the result of the one before it (recurrent layers).
    streamed : bool
        The weights come from external memory once per frame, see `accelsim.architectures.fpga.streamed`.
    bypass_bits : int
        FIFO that the shorter inputs of a join must hold while the longest is under way [bit].
    density : float
        Share of the weights that are not zero.
    """

    kind: UnitKind
    mw: int
    mh: int
    pixels: int
    channels: int
    act_bits: int
    out_bits: int
    rounds: int = 1
    window: Window | None = None
    weights: int = 0
    weight_bits: int = 0
    requantised: bool = False
    dynamic: bool = False
    pixels_in: int = 0
    feedback: int = 0
    bypass_bits: int = 0
    streamed: bool = False
    density: float = 1.0


@dataclass(frozen=True, slots=True)
class Edge:
    """A stream into a stage.

    Attributes
    ----------
    source : int
        Index of the stage that writes it.
    mode : {"stream", "window", "all"}
        An output pixel needs its share of the input in order, a sliding window of it, or the whole frame.
    pixels : int
        Pixels of the stream per frame.
    """

    source: int
    mode: EdgeMode
    pixels: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A streaming stage.

    Attributes
    ----------
    name : str
    part : int
        Index of the kernel that it belongs to.
    """

    name: str
    part: int
    unit: Unit
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Part:
    """What becomes one kernel: a fused group of ops, or the DMA of a tensor.

    Attributes
    ----------
    ops : tuple of Op
        Empty for a DMA.
    tensor : Tensor or None
        What a DMA moves.
    inward : bool
        From DRAM.
    """

    name: str
    ops: tuple[Op, ...] = ()
    tensor: Tensor | None = None
    inward: bool = True


@dataclass(frozen=True)
class Network:
    """Stages in topological order, the kernels that they make up, and what is only approximated.

    `depths` are the capacities of the FIFOs, by stage and input [pixel].
    """

    stages: tuple[Stage, ...]
    parts: tuple[Part, ...]
    approximated: tuple[str, ...]
    depths: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """A tensor as it flows: who writes it, in how many pixels of how many channels."""

    stage: int
    pixels: int
    channels: int
    bits: int
