"""The copy engine's rules, told before the driver refuses without a reason."""

import pytest
import torch

from ixc_cuda.tensor_map import check_map

MATRIX = torch.zeros(32, 64, dtype=torch.bfloat16)


def test_map_of_a_matrix() -> None:
    check_map(MATRIX, (8, 64), swizzle=128)
    check_map(MATRIX, (32, 16), swizzle=32)
    check_map(torch.zeros(4, 2, 8, 64, dtype=torch.float16), (1, 1, 8, 64), swizzle=128)
    check_map(MATRIX[:, 8:40], (32, 32))  # a part, if it starts at a multiple of 16 bytes


@pytest.mark.parametrize(
    ("tensor", "box", "swizzle", "sentence"),
    [
        (MATRIX, (8,), 0, "as many dimensions"),
        (torch.zeros(1, 1, 1, 1, 1, 8), (1, 1, 1, 1, 1, 8), 0, "1 to 5"),
        (MATRIX.t(), (8, 8), 0, "last dimension has stride 64"),
        (MATRIX[:, 1:], (8, 8), 0, "no multiple of 16"),
        (torch.zeros(32, 63, dtype=torch.bfloat16), (8, 8), 0, "stride of 126 bytes"),
        (torch.zeros(512, 64), (257, 8), 0, "sides must be 1 to 256"),
        (MATRIX, (0, 8), 0, "sides must be 1 to 256"),
        (MATRIX, (8, 4), 0, "rows have 8 bytes, no multiple of 16"),
        (torch.zeros(8, 128, dtype=torch.bfloat16), (8, 128), 128, "256 bytes; swizzle 128"),
    ],
)
def test_broken_rule_is_named(
    tensor: torch.Tensor, box: tuple[int, ...], swizzle: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_map(tensor, box, swizzle=swizzle)  # type: ignore[arg-type]
