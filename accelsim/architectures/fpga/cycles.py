"""Cycles of streaming units, as closed forms of their folding (PE, SIMD).

The formulas are those of FINN's per-node estimators (Umuroglu et al., FPGA 2017, doi:10.1145/3020078.3021744;
Blott et al., TRETS 2018, doi:10.1145/3242897). Arguments may be integers or integer arrays of equal shape, so
one call covers all foldings of a unit.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from accelsim.architectures.fpga.network import Window

BYTE = 8


def mvau(mw: Any, mh: Any, vectors: Any, pe: Any, simd: Any) -> Any:
    """Matrix-vector unit: (MW / SIMD) (MH / PE) cycles for each of `vectors` input vectors [cycles]."""
    return (mw // simd) * (mh // pe) * vectors


def vvau(channels: Any, taps: Any, pixels: Any, pe: Any, simd: Any) -> Any:
    """Depthwise unit: C kh kw / (PE SIMD) cycles per output pixel [cycles]."""
    return (channels // pe) * (taps // simd) * pixels


def channelwise(channels: Any, pixels: Any, pe: Any) -> Any:
    """Thresholding, addition, duplication: C / PE cycles per pixel [cycles]."""
    return (channels // pe) * pixels


def pool(channels: Any, taps: Any, pixels: Any, pe: Any) -> Any:
    """Pooling: C k k / PE cycles per output pixel [cycles]."""
    return (channels // pe) * taps * pixels


def global_pool(channels: Any, pixels_in: Any, pe: Any) -> Any:
    """Accumulate every input pixel, then put the sums out: (pixels + 1) C / PE [cycles]."""
    return (channels // pe) * (pixels_in + 1)


def window_fill(window: Window, folds: Any) -> Any:
    """Input words before the first window is complete: ((kh - 1) dh Wi + (kw - 1) dw + 1) C / SIMD
    [cycles]."""
    rows = (window.kernel_h - 1) * window.dilation_h * window.padded_w
    return (rows + (window.kernel_w - 1) * window.dilation_w + 1) * folds


def sliding_window(window: Window, channels: Any, simd: Any, *, depthwise: bool = False) -> Any:
    """Sliding-window generator that reads its buffer kh kw C / SIMD times per output pixel [cycles].

    Two-dimensional: fill + Ho max(Wo kh kw f, sw Wi f) with f = C / SIMD; a depthwise one adds Wo (sw - 1)(f
    - 1) to each row and (sh - 1) Wi f at the end. One-dimensional: Wo kw f + 2. With a 1x1 kernel it passes
    (or drops) pixels: inputs + 2.
    """
    folds = channels // simd
    if window.taps == 1:
        return window.padded_h * window.padded_w * folds + 2
    if window.padded_h == 1:
        return window.out_w * window.kernel_w * folds + 2
    row = window.out_w * window.taps * folds
    tail = folds * 0
    if depthwise:
        row = row + window.out_w * (window.stride_w - 1) * (folds - 1)
        tail = (window.stride_h - 1) * window.padded_w * folds
    line = window.stride_w * window.padded_w * folds
    return window_fill(window, folds) + window.out_h * np.maximum(row, line) + tail


def parallel_window(window: Window) -> int:
    """Sliding-window generator that puts a whole window out per cycle (SIMD = C): one cycle per input pixel,
    + 2 [cycles]."""
    return window.padded_h * window.padded_w + 2


def dma_width(frame_bits: int, widest: int) -> int:
    """Width of a DMA stream: the greatest common divisor of the frame and the widest interface [bit].

    The frame is padded to whole bytes first, because an interface has a multiple of 8 bits.
    """
    padded = -(-frame_bits // BYTE) * BYTE
    return gcd(padded, max(widest // BYTE, 1) * BYTE)


def dma_beats(frame_bits: int, widest: int) -> int:
    """Transfers of one frame: padded frame / width [cycles]."""
    padded = -(-frame_bits // BYTE) * BYTE
    return padded // dma_width(frame_bits, widest)
