"""Colours by name for many things at once: the arithmetic of `drawing.colours` on tensors.

A colour is three numbers from 0 to 1 in the last dimension; names are numbers in COLOUR_NAMES.
"""

import torch
from torch import Tensor

from models.demo.drawing.colours import DISTINCT, RANGES
from models.demo.drawing.judging import COLOUR_NAMES
from models.demo.training.staging import Dice

_BLACK, _WHITE = COLOUR_NAMES.index("black"), COLOUR_NAMES.index("white")
_LEAST_CONTRAST, _LEAST_BRIGHTNESS_STEP = 250.0, 85.0  # of letters, as in `drawing.lettering`


def shades(dice: Dice, *shape: int) -> Tensor:
    """(*shape, 11, 3): some colour that bears each name."""
    ranges = torch.tensor([RANGES[name] for name in COLOUR_NAMES], device=dice.device)
    low, high = ranges[..., 0].float(), ranges[..., 1].float()
    return from_hsv(low + (high - low) * dice.share(*shape, len(COLOUR_NAMES), 3))


def from_hsv(colour: Tensor) -> Tensor:
    """Degrees and percents in, red, green and blue out."""
    hue, saturation, value = (colour[..., k : k + 1] for k in range(3))
    turns = torch.tensor([5.0, 3.0, 1.0], device=colour.device)
    k = (turns + hue / 60) % 6
    mixed = torch.minimum(k, 4 - k).clamp(0, 1)
    return value / 100 * (1 - saturation / 100 * mixed)


def tones(dice: Dice, count: int) -> Tensor:
    """(count, 3): light or dark tones without a name, as grounds have them."""
    light = torch.tensor([[0.0, 3, 82], [360, 26, 100]], device=dice.device)
    dark = torch.tensor([[0.0, 10, 10], [360, 60, 32]], device=dice.device)
    low, high = torch.where(dice.chance(0.62, count, 1, 1), light, dark).unbind(1)
    return from_hsv(low + (high - low) * dice.share(count, 3))


def apart(one: Tensor, other: Tensor) -> Tensor:
    """`drawing.colours.apart`: 0 for equals, 765 for black and white."""
    mean = 127.5 * (one[..., 0] + other[..., 0])
    red, green, blue = (255 * (one - other)).square().unbind(-1)
    return ((2 + mean / 256) * red + 4 * green + (2 + (255 - mean) / 256) * blue).sqrt()


def brightness(colour: Tensor) -> Tensor:
    """0 for black, 255 for white."""
    weights = torch.tensor([76.245, 149.685, 29.07], device=colour.device)
    return (colour * weights).sum(-1)


def contrast_to(colour: Tensor) -> Tensor:
    """Black or white, whichever stands out."""
    return (brightness(colour) <= 127).float()[..., None].expand_as(colour)


def stand_out(dice: Dice, behind: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """`count` colours for each of N grounds with T tones (N, T, 3), distinct from all of them.

    Returns the colours (N, count, 3), their names, and whether none was distinct, so that a rim
    is needed.
    """
    offered = shades(dice, len(behind), count)
    far = apart(offered[:, :, :, None], behind[:, None, None]).amin(-1) >= DISTINCT
    chosen = (dice.share(*far.shape) + far).argmax(-1)
    return _chosen(offered, chosen), chosen, ~far.gather(2, chosen[..., None])[..., 0]


def inks(dice: Dice, behind: Tensor) -> tuple[Tensor, Tensor]:
    """A colour easily read on all T tones behind each of N x K words (N, K, T, 3), and its name."""
    offered = shades(dice, *behind.shape[:2])
    tone = behind[:, :, None]
    far = apart(offered[..., None, :], tone).amin(-1) >= _LEAST_CONTRAST
    step = (brightness(offered)[..., None] - brightness(tone)).abs().amin(-1)
    far &= step >= _LEAST_BRIGHTNESS_STEP
    numbers = torch.arange(len(COLOUR_NAMES), device=dice.device)
    is_common = (numbers == _BLACK) | (numbers == _WHITE)
    # Black and white twice as likely as others; where nothing is readable, the better of the two.
    wish = dice.share(*far.shape) ** torch.where(is_common, 0.5, 1.0)
    is_dark = brightness(behind).mean(-1, keepdim=True) <= 127
    fallback = torch.where(is_dark, numbers == _WHITE, numbers == _BLACK)
    chosen = torch.where(far, 2 + wish, fallback.float()).argmax(-1)
    return _chosen(offered, chosen), chosen


def _chosen(offered: Tensor, index: Tensor) -> Tensor:
    return offered.gather(2, index[..., None, None].expand(-1, -1, 1, 3))[:, :, 0]
