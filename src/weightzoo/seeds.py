"""Independent random streams: everything random is a function of (member seed, purpose, position), and of that alone.

A member has three seeds (init, order, dropout). What is drawn never depends on the neighbours in a population, on the
thread, the engine, the vector width, or on where an interrupted training was taken up again. Only the *raw bits* of
NumPy's Philox generator are used for init and order, since those alone are guaranteed to stay the same between releases
of NumPy. Dropout needs a draw a unit and sample, so it has a cheap counter-based hash, which every engine reproduces
bit by bit.
"""

from __future__ import annotations

import hashlib

import numpy as np

MAX_SEED = 2**63 - 1
GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive counters over all bits
MIX1, MIX2 = 0x7FEB352D, 0x846CA68B  # multipliers with low bias (Wellons, "Prospecting for hash functions", 2018)


def stream(seed: int, purpose: str, *position: int) -> np.random.Philox:
    """The bit generator of one purpose at one position, e.g. `stream(7, "order", epoch)`."""
    return np.random.Philox(key=np.frombuffer(_digest(seed, purpose, position), dtype=np.uint64))


def uniforms(seed: int, purpose: str, *position: int, size: int) -> np.ndarray:
    """Float64 `[size]`, uniform on [0, 1): the upper 53 of 64 raw bits."""
    bits = stream(seed, purpose, *position).random_raw(size)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normals(seed: int, purpose: str, *position: int, size: int) -> np.ndarray:
    """Float64 `[size]`, standard normal, by Box and Muller (1958)."""
    pairs = (size + 1) // 2
    u = uniforms(seed, purpose, *position, size=2 * pairs)
    radius, angle = np.sqrt(-2.0 * np.log1p(-u[:pairs])), 2.0 * np.pi * u[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]


def permutation(seed: int, purpose: str, *position: int, size: int) -> np.ndarray:
    """Int32 `[size]`: a uniform permutation, the ranks of 64-bit draws."""
    return np.argsort(stream(seed, purpose, *position).random_raw(size), kind="stable").astype(np.int32)


def sample_order(order_seed: int, epoch: int, samples: int) -> np.ndarray:
    """Int32 `[samples]`: the order in which training visits the images in `epoch` (1 is the first)."""
    return permutation(order_seed, "order", epoch, size=samples)


def augmentation_draws(order_seed: int, epoch: int, samples: int) -> np.ndarray:
    """Float64 `[samples, 4]` on [0, 1): four draws for the image at each position of `epoch`'s order.

    A function of seed, epoch and position: neither the number of samples nor what the draws are used for has a say.
    """
    return uniforms(order_seed, "augmentation", epoch, size=4 * samples).reshape(samples, 4)


def spawn(seed: int, purpose: str, count: int) -> tuple[int, ...]:
    """`count` distinct seeds drawn from `seed`, below 2**31 so that every library takes them."""
    drawn: dict[int, None] = {}
    raw = stream(seed, purpose)
    while len(drawn) < count:
        drawn.setdefault(int(raw.random_raw()) >> 33)
    return tuple(drawn)


def dropout_key(dropout_seed: int) -> tuple[int, int]:
    """The two 32-bit words that stand for a member's dropout seed in `draw32`."""
    return _key(dropout_seed, "dropout")


def noise_key(dropout_seed: int) -> tuple[int, int]:
    """The two words that stand for a member's dropout seed in `noise`: another stream than that of its masks."""
    return _key(dropout_seed, "variational dropout")


def draw32(key0: np.ndarray, key1: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """32 random bits for each (64-bit key, 32-bit counter): uint32, the arguments broadcast against each other.

    Two multiply-xorshift rounds on `counter * 2**32/phi + key0`, `key1` entering between them, so that two keys share
    no shifted run of draws. All arithmetic is modulo 2**32.
    """
    x = np.asarray(counter, np.uint32) * np.uint32(GOLDEN) + np.asarray(key0, np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(MIX1)
    x = x ^ np.asarray(key1, np.uint32)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(MIX2)
    return x ^ (x >> np.uint32(16))


def dropout_keep(key: tuple[int, int], visits: np.ndarray, units: np.ndarray, rate: float) -> np.ndarray:
    """Which units dropout keeps: bool `[len(visits), len(units)]`.

    A *visit* numbers the samples in the order of training, over all epochs: `(epoch - 1) * samples + position`, with
    epochs counted from 1. A *unit* is its number over all dropout layers (`Architecture.dropout_offsets`). The visit's
    own key is drawn at counters `2 * visit` and `2 * visit + 1`, the unit's bits with that key at counter `unit`; it is
    kept if their upper 31 bits, as an integer, are at least `floor(rate * 2**31)`.
    """
    return (_visit_bits(key, visits, units) >> np.uint32(1)) >= np.uint32(int(rate * 2**31))


def noise(key: tuple[int, int], visits: np.ndarray, first: int, size: int) -> np.ndarray:
    """The noise of variational dropout, standard normal: float64 `[len(visits), size]`, by Box and Muller (1958).

    Visits and bits are those of `dropout_keep`, with the counters from `first` on: with `half = ceil(size / 2)`, unit i
    < half has radius `sqrt(-2 log u)` and unit half + i the same one, u being `(k + 1/2) / 2**24` with the upper 24
    bits k at counter `first + i`; the angle is `2 pi k / 2**24` at counter `first + half + i`, the cosine of which
    belongs to unit i, its sine to unit half + i.
    """
    half = -(-size // 2)
    upper = (_visit_bits(key, visits, first + np.arange(2 * half)) >> np.uint32(8)).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((upper[:, :half] + 0.5) / 2**24))
    angle = 2.0 * np.pi * upper[:, half:] / 2**24
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :size]


def _visit_bits(key: tuple[int, int], visits: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """32 random bits for each visit and counter, uint32 `[len(visits), len(counters)]`."""
    key0, key1 = np.array(key, np.uint32)[:, None, None]
    visits = np.asarray(visits, np.uint32)[:, None]
    visit_key0 = draw32(key0, key1, visits * np.uint32(2))
    visit_key1 = draw32(key0, key1, visits * np.uint32(2) + np.uint32(1))
    return draw32(visit_key0, visit_key1, np.asarray(counters, np.uint32)[None, :])


def _key(seed: int, purpose: str) -> tuple[int, int]:
    words = np.frombuffer(_digest(seed, purpose, ()), dtype=np.uint32)
    return int(words[0]), int(words[1])


def _digest(seed: int, purpose: str, position: tuple[int, ...]) -> bytes:
    text = ":".join([str(seed), purpose, *map(str, position)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
