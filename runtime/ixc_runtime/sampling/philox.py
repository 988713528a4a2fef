"""Philox4x32-10: a counter-based generator, so that a draw needs no state.

J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The same (seed,
position, sample) gives the same draw whatever else is in the batch, on any machine and any day.
"""

_MASK = 0xFFFFFFFF
_ROUND_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, ...]:
    """Four 32-bit words for a 128-bit counter under a 64-bit key, ten rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0 = _ROUND_MULTIPLIERS[0] * c0
        p1 = _ROUND_MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0 = (k0 + _KEY_INCREMENTS[0]) & _MASK
        k1 = (k1 + _KEY_INCREMENTS[1]) & _MASK
    return c0, c1, c2, c3


def uniform(*, seed: int, position: int, sample: int = 0) -> float:
    """A number in [0, 1) with 53 random bits for one output position of one sample."""
    words = philox4x32((position, sample, 0, 0), (seed & _MASK, (seed >> 32) & _MASK))
    return float(((words[0] << 32) | words[1]) >> 11) * 2.0**-53
