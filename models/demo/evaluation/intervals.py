"""How far a rate found on a sample, or a change of one, may be from the true one."""

import math
from statistics import NormalDist

_CONFIDENCE = 0.95


def wilson(rate: float, tries: int, *, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval: the true rates that a rate found in so many tries speaks for.

    Unlike the textbook's symmetric one it holds near 0 and 1, where good models are, and never
    leaves them. Without tries nothing is known: 0 to 1.
    """
    if not 0 <= rate <= 1 or tries < 0:
        raise ValueError(f"no interval for a rate of {rate} in {tries} tries")
    if tries == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z * z / tries
    centre = (rate + z * z / (2 * tries)) / shrink
    reach = z / shrink * math.sqrt(rate * (1 - rate) / tries + z * z / (4 * tries * tries))
    # What rounding adds at the very ends would deny a rate of exactly 0 or 1.
    return max(0.0, min(rate, centre - reach)), min(1.0, max(rate, centre + reach))


def paired_drop(
    lost: int, gained: int, cases: int, *, confidence: float = _CONFIDENCE
) -> tuple[float, float]:
    """How far a rate may truly have dropped, of cases that were asked before and after.

    `lost` were right before and are wrong now, `gained` the other way round; all others are of no
    account, which makes this far narrower than the difference of two intervals. Wald's, with one
    case added to either (Bonett and Price, 2012), so that it holds for small numbers too. Without
    cases nothing is known: -1 to 1.
    """
    if min(lost, gained) < 0 or lost + gained > cases:
        raise ValueError(f"no interval for {lost} lost and {gained} gained of {cases}")
    if cases == 0:
        return -1.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    down, up = (lost + 1) / (cases + 2), (gained + 1) / (cases + 2)
    drop = down - up
    reach = z * math.sqrt((down + up - drop * drop) / (cases + 2))
    return max(-1.0, drop - reach), min(1.0, drop + reach)
