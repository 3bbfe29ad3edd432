"""fairtat's random numbers (src/rng.rs) in numpy: Philox4x32-10 with the counter [index/4, sample, epoch, purpose]."""

import numpy as np

SHUFFLE, ATTACK_START, TARGET, EVALUATION_START, ATTACK_NOISE = 2, 4, 5, 8, 11
MASK = np.uint64(0xFFFFFFFF)


def philox4x32_10(counter, key):
    """Counter: four arrays of equal shape; key: two ints. Returns four uint32 arrays."""
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in counter)
    k0, k1 = key
    shift = np.uint64(32)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ np.uint64(k0), p1 & MASK, (p0 >> shift) ^ c3 ^ np.uint64(k1), p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c.astype(np.uint32) for c in (c0, c1, c2, c3)]


class Stream:
    def __init__(self, seed, purpose, epoch, sample):
        self.key = (seed & 0xFFFFFFFF, seed >> 32)
        self.tail = (sample, epoch, purpose)

    def words(self, count):
        """The words with the indices 0..count."""
        blocks = np.arange(-(-count // 4), dtype=np.uint64)
        tail = (np.full_like(blocks, t) for t in self.tail)
        return np.stack(philox4x32_10((blocks, *tail), self.key), axis=1).reshape(-1)[:count]

    def unit(self, count):
        """float32 in [0, 1)."""
        return (self.words(count) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)

    def symmetric(self, count):
        """float32 in [-1, 1)."""
        return self.unit(count) * np.float32(2) - np.float32(1)

    def normal(self, count):
        """Standard normal float32 (Box and Muller): number i from the words 2 i and 2 i + 1."""
        first, second = self.unit(2 * count).reshape(-1, 2).T
        return np.sqrt(np.float32(-2) * np.log(np.float32(1) - first)) * np.cos(np.float32(2 * np.pi) * second)

    def permutation(self, count):
        """0..count in the order that `Sequence::shuffle` leaves it in: Fisher and Yates from the end, Lemire's rejection."""
        words = iter(self.words(4 * count + 64).tolist())
        items = list(range(count))
        for i in range(count - 1, 0, -1):
            bound = i + 1
            threshold = (2**32 - bound) % bound
            while True:
                product = next(words) * bound
                if product & 0xFFFFFFFF >= threshold:
                    break
            j = product >> 32
            items[i], items[j] = items[j], items[i]
        return items


def check_known_answers():
    """Lines `philox4x32 10` of Random123's kat_vectors."""
    for counter, key, expected in (
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ):
        assert [int(w) for w in philox4x32_10(counter, key)] == expected
