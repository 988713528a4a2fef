"""A decode step's inputs, beside the same in torch."""

import torch

from ixc_cuda.step_inputs import step_inputs


def test_rows_are_looked_up_by_place_and_nobodys_rows_write_nowhere() -> None:
    """Known tokens and last ones, first and last slot of a page, and a row of padding."""
    places, pages, half, page_size = 6, 40, 32, 16
    page_tables = torch.randperm(places * pages).to(torch.int32).view(places, pages).cuda()
    frequencies = torch.rand(places, half).cuda()
    last_ids = torch.arange(100, 100 + places).cuda()
    place = [3, 0, 4, 5, 5]
    context = [1, 16, 17, 0, 0]
    token = [7, -2, 9, 0, 0]
    inputs = torch.zeros(3, 9, dtype=torch.int64)
    inputs[:, :5] = torch.tensor([place, context, token])
    made = step_inputs(
        inputs.cuda()[:, :5], page_tables, frequencies, last_ids, page_size=page_size
    )

    assert made.token_ids.tolist() == [7, 100, 9, 0, 0]
    assert made.context_lengths.tolist() == context
    expected = [
        int(page_tables[p, (c - 1) // page_size]) * page_size + (c - 1) % page_size if c else -1
        for p, c in zip(place, context, strict=True)
    ]
    assert made.slots.tolist() == expected
    for row, (p, c) in enumerate(zip(place, context, strict=True)):
        used = -(-c // page_size)
        assert made.page_tables[row, :used].tolist() == page_tables[p, :used].tolist()
        angles = max(c - 1, 0) * frequencies[p].double()
        torch.testing.assert_close(made.cos[row].double(), angles.cos(), atol=2e-6, rtol=0)
        torch.testing.assert_close(made.sin[row].double(), angles.sin(), atol=2e-6, rtol=0)
