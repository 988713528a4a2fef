"""The published int4 layout (AWQ, version "gemm") as invertible functions.

A linear of `out` x `in` weights is stored transposed, eight 4-bit columns to an int32:

    qweight  int32  [in, out / 8]            the quantised weights q
    qzeros   int32  [in / group, out / 8]    a zero point z per group of input rows and column
    scales   float  [in / group, out]        a scale s per group of input rows and column

    w[column, row] = (q - z) * s, with q and z from 0 to 15 and z taken as stored (no offset of one)

Within an int32, the nibble at bits 4k holds column 8c + PACK_ORDER[k]:

    bits     31..28  27..24  23..20  19..16  15..12  11..8   7..4   3..0
    column      7       5       3       1       6      4      2      0      (+ 8c)

so the low four nibbles are the even columns and the high four the odd ones: a kernel that splits a
word by `& 0x000f000f` gets two neighbouring columns in the two halves of a register.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NIBBLES = 8
LEVELS = 15  # the largest 4-bit value

# PACK_ORDER[k]: the column (of eight) in nibble k. UNPACK_ORDER[c]: the nibble that holds column c.
PACK_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
UNPACK_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLinear:
    """One linear in the layout above."""

    qweight: "Tensor"
    qzeros: "Tensor"
    scales: "Tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedLinear:
    """One linear's weights as levels, before packing: floats that are whole numbers 0 to 15."""

    q: "Tensor"  # [out, groups, group]
    zeros: "Tensor"  # [out, groups, 1]
    scales: "Tensor"  # float16 [out, groups, 1]

    def weights(self) -> "Tensor":
        """What they stand for, float32 [out, in]: equal to `dequantize` of the packed tensors."""
        import torch

        return (self.q - self.zeros).mul_(self.scales.to(torch.float32)).flatten(1)

    def split(self, rows: "Sequence[int]") -> "list[RoundedLinear]":
        """Linears of so many rows each, which stood one above the other."""
        import torch

        parts = (torch.split(each, list(rows)) for each in (self.q, self.zeros, self.scales))
        return [RoundedLinear(q=q, zeros=z, scales=s) for q, z, s in zip(*parts, strict=True)]


def pack(values: "Tensor") -> "Tensor":
    """Whole numbers 0 to 15, [rows, columns] -> int32 [rows, columns / 8]."""
    import torch

    rows, columns = values.shape
    if columns % NIBBLES:
        raise ValueError(f"{columns} columns do not fill int32s of {NIBBLES}")
    nibbles = values.to(torch.int64).reshape(rows, columns // NIBBLES, NIBBLES)[..., PACK_ORDER]
    shifts = torch.arange(0, 32, 4, device=values.device)
    words = (nibbles << shifts).sum(-1)
    # Above 2**31 the word is a negative int32 of the same bits.
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def unpack(words: "Tensor") -> "Tensor":
    """int32 [rows, columns / 8] -> uint8 [rows, columns], the inverse of `pack`."""
    import torch

    shifts = torch.arange(0, 32, 4, device=words.device, dtype=torch.int32)
    nibbles = (words.unsqueeze(-1) >> shifts) & LEVELS  # the mask undoes the sign's extension
    return nibbles.to(torch.uint8)[..., UNPACK_ORDER].flatten(1)


def dequantize(packed: PackedLinear, group_size: int) -> "Tensor":
    """The weights as float32 [out, in], the products of the float16 scales taken in float32."""
    import torch

    q = unpack(packed.qweight)
    z = unpack(packed.qzeros).repeat_interleave(group_size, 0)
    s = packed.scales.to(torch.float32).repeat_interleave(group_size, 0)
    return ((q.to(torch.float32) - z.to(torch.float32)) * s).t().contiguous()


def quantize(weight: "Tensor", group_size: int) -> PackedLinear:
    """Round float weights [out, in] to the nearest level of each group's own range."""
    return pack_linear(round_to_levels(weight, group_size))


def round_to_levels(
    weight: "Tensor", group_size: int, limits: "tuple[Tensor, Tensor] | None" = None
) -> RoundedLinear:
    """Float weights [out, in] to levels; `limits` are each group's lowest and highest value.

    s = max(max - min, 1e-5) / 15; z = clamp(-round(min / s)); q = clamp(round(w / s) + z)

    Limits are [out, groups, 1]; without, they are what the group holds. What lies outside is
    clipped. Zero always has a level, so limits that do not include it lose more than they gain.
    """
    import torch

    rows, columns = weight.shape
    if columns % group_size:
        raise ValueError(f"{columns} input columns do not divide into groups of {group_size}")
    groups = weight.to(torch.float32).reshape(rows, columns // group_size, group_size)
    low, high = limits or (groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True))
    scales = (high - low).clamp(min=1e-5) / LEVELS
    zeros = (-torch.round(low / scales)).clamp(0, LEVELS)
    q = (groups / scales).round_().add_(zeros).clamp_(0, LEVELS)
    return RoundedLinear(q=q, zeros=zeros, scales=scales.to(torch.float16))


def pack_linear(rounded: RoundedLinear) -> PackedLinear:
    return PackedLinear(
        qweight=pack(rounded.q.flatten(1).t()),
        qzeros=pack(rounded.zeros.squeeze(-1).t()),
        scales=rounded.scales.squeeze(-1).t().contiguous(),
    )
