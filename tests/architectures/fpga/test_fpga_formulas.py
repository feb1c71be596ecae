"""Cycle and resource formulas against published numbers and hand counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.architectures.fpga import cycles as cyc
from accelsim.architectures.fpga import resources as res
from accelsim.architectures.fpga.network import Window
from accelsim.architectures.fpga.options import divisors


def window(size, kernel, stride=1, pad=0, height=None):
    out = (size + 2 * pad - kernel) // stride + 1
    if height == 1:
        return Window(1, size, 1, kernel, 1, stride, 1, 1, 0, pad, 0, pad, 1, out)
    return Window(size, size, kernel, kernel, stride, stride, 1, 1, pad, pad, pad, pad, out, out)


# Generator SIMD, layer and cycles of the MobileNet-v1 w4a4 build for ZCU104 (finn-examples, folding_config).
@pytest.mark.parametrize(
    ("size", "channels", "stride", "simd", "depthwise", "expected"),
    [
        (224, 3, 2, 1, False, 340053),
        (112, 32, 1, 16, True, 226254),
        (112, 64, 2, 8, True, 250504),
        (56, 128, 1, 16, True, 226744),
        (56, 128, 2, 4, True, 255760),
        (28, 256, 2, 2, True, 262588),
        (14, 512, 1, 4, True, 230272),
    ],
)
def test_sliding_window_of_the_mobilenet_build(size, channels, stride, simd, depthwise, expected):
    found = cyc.sliding_window(window(size, 3, stride, 1), channels, simd, depthwise=depthwise)
    assert found == expected


def test_sliding_window_in_one_dimension_and_of_one_tap():
    assert cyc.sliding_window(window(1024, 3, 1, 1, height=1), 2, 1) == 1024 * 3 * 2 + 2
    assert cyc.sliding_window(window(28, 1), 64, 32) == 28 * 28 * 2 + 2
    assert cyc.parallel_window(window(28, 3, 1, 1)) == 30 * 30 + 2


def test_matrix_units_of_published_builds():
    assert cyc.mvau(576, 64, 784, 32, 32) == 28224  # BNN-PYNQ cnvW1A1, layer 1
    assert cyc.mvau(512, 512, 1, 1, 8) == 32768  # layer 7
    assert cyc.vvau(64, 9, 56 * 56, 8, 1) == 225792  # MobileNet-v1, second depthwise layer
    assert cyc.pool(1024, 49, 1, 1) == 50176  # its average pool


def test_dma_of_a_600_bit_frame_is_8_bits_wide():
    """gcd(600, 32) = 8: 75 beats, more than the 64 cycles of the perceptron behind it."""
    assert cyc.dma_width(600, 32) == 8
    assert cyc.dma_beats(600, 32) == 75
    assert cyc.dma_beats(784, 32) == 49
    assert cyc.dma_beats(10, 32) == 1  # padded to two bytes


@given(st.integers(1, 10**6), st.sampled_from([8, 16, 32, 64, 128, 256, 512]))
def test_dma_moves_the_whole_frame_in_whole_words(bits, widest):
    width, beats = cyc.dma_width(bits, widest), cyc.dma_beats(bits, widest)
    assert width % 8 == 0
    assert width <= widest
    assert bits <= width * beats < bits + 8


@pytest.mark.parametrize(
    ("width", "depth", "blocks"),
    [
        (1, 16384, 1), (1, 16385, 2), (2, 8192, 1), (4, 4096, 1), (3, 4097, 2), (9, 2048, 1), (18, 1024, 1),
        (36, 512, 1), (36, 513, 2), (72, 512, 2), (100, 512, 3), (19, 600, 2),
    ],
)  # fmt: skip
def test_bram_shapes(width, depth, blocks):
    assert res.bram18(width, depth) == blocks


@given(st.integers(1, 2000), st.integers(1, 50000))
def test_memories_hold_their_bits_and_grow(width, depth):
    assert res.bram18(width, depth) * 18432 >= width * depth
    assert res.uram(width, depth) * 294912 >= width * depth
    assert res.m20k(width, depth) * 20480 >= width * depth
    assert res.lutram(width, depth) * 64 >= width * depth
    for blocks in (res.uram, res.m20k, res.lutram):
        assert blocks(width, depth + 1) >= blocks(width, depth)
        assert blocks(width + 1, depth) >= blocks(width, depth)


def test_dsp_packing():
    assert res.multiplier_dsp(8, 16, 4, 4, "ultrascale+") == 2 * 16
    assert res.multiplier_dsp(8, 16, 8, 8, "ultrascale+") == 4 * 16
    assert res.multiplier_dsp(8, 16, 8, 8, "versal") == 8 * 6
    assert res.multiplier_dsp(8, 9, 4, 4, "ultrascale+", shared=False) == 72
    assert res.multiplier_dsp(4, 4, 16, 16, "7series") == 16
    assert res.multiplier_dsp(3, 3, 8, 8, "arria10") == 5
    assert res.multiplier_dsp(3, 3, 8, 8, "agilex") == 3


def test_lut_formula_by_hand():
    """W = A = 1, PE 32, SIMD 32, MW 576: popcount and XNOR, as FINN's estimator counts them."""
    acc = res.accumulator_bits(576, 1, 1)
    alpha = np.log2(576) + 1
    assert acc == np.ceil(alpha + np.log2(1 + 2**-alpha) + 1) == 12
    assert res.multiplier_lut(32, 32, 1, 1) == pytest.approx(1.1 * 32 * 32 * 1 * 2)
    assert res.adder_lut(32, 32, 1, 1, acc) == pytest.approx(1.1 * 32 * (2 * 63 + 12))
    assert res.threshold_search_lut(32, 1, acc, 2) == pytest.approx(1.1 * 32 * 12 * 2)
    assert res.threshold_search_lut(8, 4, 20, 16) == pytest.approx(1.1 * 8 * 20 * (4 + 1 + 1 + 1 + 2))
    assert res.fifo_lut(32) == 2 * 5 + 16


def test_width_converter_needs_nothing_between_equal_widths():
    assert res.width_converter_lut(64, 64) == 0
    assert res.width_converter_lut(32, 64) > 0


@given(st.integers(1, 5000))
def test_divisors(n):
    assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]
