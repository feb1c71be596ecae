"""The tile search against loops that are really walked, and its laws."""

from __future__ import annotations

from itertools import product
from math import ceil, inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.systolic import memory


def fetches(trips: dict[str, int], order: str) -> tuple[int, int, int]:
    """Walk three loops and count how often each operand's tile changes, per distinct tile."""
    held: dict[str, tuple] = {}
    count = {"mk": 0, "nk": 0, "mn": 0}
    for point in product(*(range(trips[loop]) for loop in order)):
        at = dict(zip(order, point))
        for operand in count:
            tile = tuple(at[loop] for loop in operand)
            if held.get(operand) != tile:
                held[operand] = tile
                count[operand] += 1
    return tuple(c // (trips[o[0]] * trips[o[1]]) for o, c in count.items())


def test_repeats_equal_the_walk():
    for m, n, k in product((1, 2, 3), repeat=3):
        for order, at in zip(memory.ORDERS, memory._POSITIONS):
            assert memory.repeats(m, n, k, *at) == fetches({"m": m, "n": n, "k": k}, order)


def search(
    m, n, k, left=1.0, right=1.0, sums=4.0, room=(inf, inf, inf, inf), left_bytes=None, right_bytes=None
):
    out = np.zeros(5)
    left_bytes = m * k * left if left_bytes is None else left_bytes
    right_bytes = k * n * right if right_bytes is None else right_bytes
    memory.tile_search(m, n, k, left_bytes, right_bytes, left, right, sums, np.array(room, float), out)
    return out


def halves(size):
    cut, seen = 1, []
    while not seen or seen[-1] > 1:
        seen.append(ceil(size / cut))
        cut *= 2
    return seen


def slow_search(m, n, k, left, right, sums, room):
    """All tiles of the same shapes, every depth from the whole down to one, every order walked."""
    best = inf
    for tm, tn in product(halves(m), halves(n)):
        trips_m, trips_n = ceil(m / tm), ceil(n / tn)
        for tk in range(k, 0, -1):
            whole = tk == k
            left_tile = tm * tk * left * (1 if whole and trips_m == 1 else 2)
            right_tile = tn * tk * right * (1 if whole and trips_n == 1 else 2)
            sum_tile = tm * tn * sums
            if (
                left_tile > room[1]
                or right_tile > room[2]
                or sum_tile > room[3]
                or left_tile + right_tile + sum_tile > room[0]
            ):
                continue
            for order in memory.ORDERS:
                a, b, c = fetches({"m": trips_m, "n": trips_n, "k": ceil(k / tk)}, order)
                best = min(
                    best, m * k * left * (a - 1) + k * n * right * (b - 1) + 2 * m * n * sums * (c - 1)
                )
            break
    return best


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(12, 300), st.booleans())
def test_search_equals_the_slow_one(m, n, k, capacity, split):
    room = (capacity, capacity / 3, capacity / 3, capacity / 3) if split else (capacity, inf, inf, inf)
    slow = slow_search(m, n, k, 1.0, 2.0, 4.0, room)
    fast = search(m, n, k, 1.0, 2.0, 4.0, room)[memory.EXTRA_BYTES]
    if slow < inf:
        assert fast == pytest.approx(slow)


sizes = st.integers(1, 5000)


@settings(max_examples=150, deadline=None)
@given(sizes, sizes, sizes, st.floats(16, 1e7), st.floats(1.0, 8.0))
def test_more_room_never_moves_more(m, n, k, capacity, factor):
    small = search(m, n, k, room=(capacity, inf, inf, inf))[memory.EXTRA_BYTES]
    large = search(m, n, k, room=(capacity * factor, inf, inf, inf))[memory.EXTRA_BYTES]
    assert 0 <= large <= small


@settings(max_examples=150, deadline=None)
@given(sizes, sizes, sizes, st.floats(64, 1e7))
def test_chosen_tiles_fit(m, n, k, capacity):
    out = search(m, n, k, room=(capacity, inf, inf, inf))
    tm, tn, tk = out[memory.TILE_M], out[memory.TILE_N], out[memory.TILE_K]
    assert tm * tk * 1.0 + tn * tk * 1.0 + tm * tn * 4.0 <= capacity


def test_what_fits_is_read_once():
    assert search(512, 512, 512, room=(8 * 2**20, inf, inf, inf))[memory.EXTRA_BYTES] == 0


def test_streaming_one_large_operand_past_a_small_one_costs_nothing():
    """The weight matrix fits: activations of any length stream past it once."""
    assert search(10**6, 256, 256, room=(2**20, inf, inf, inf))[memory.EXTRA_BYTES] == 0


def test_traffic_of_a_square_product_falls_with_the_root_of_the_capacity():
    """Blocked products move about 2 n^3 / tile elements (Hong, Kung 1981): 4 times the room, half of it."""
    n = 8192
    moved = [search(n, n, n, room=(c, inf, inf, inf))[memory.EXTRA_BYTES] for c in (2**18, 2**20, 2**22)]
    assert moved[0] / moved[1] == pytest.approx(2, rel=0.5)
    assert moved[1] / moved[2] == pytest.approx(2, rel=0.5)
    tile = (2**20 / 4) ** 0.5
    assert moved[1] < 4 * 2 * n**3 / tile


def steps_extra(steps, weights, room):
    one = np.array([1], np.int64)
    width = np.array([1.0])
    size = int(weights**0.5)
    side = np.array([size], np.int64)
    table = memory.tile_table(
        one, one, side, side, np.array([steps], np.int64), np.array([0.0]), np.array([float(size * size)]),
        width, width, np.array([4.0]), np.array([0.0]), np.array([room, inf, inf, inf]),
    )  # fmt: skip
    return table[0, memory.EXTRA_BYTES]


def test_recurrent_weights_stay_or_are_read_at_every_step():
    assert steps_extra(10, 64 * 64, 8192) == 0
    assert steps_extra(10, 64 * 64, 2048) == 9 * 64 * 64
