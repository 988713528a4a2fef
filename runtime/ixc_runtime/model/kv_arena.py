"""The memory of the KV cache: one tensor of keys, one of values, cut into pages.

Knows where a page lies, not who owns it: that is `ixc_runtime.kv_cache`.
"""

import torch

from ixc_runtime.config import ModelConfig


class KvArena:
    """Keys (rotated) and values as (layers, pages, page_size, kv_heads, head_dim).

    Starts as zeros rather than as whatever the memory held: attention reads whole pages and masks
    the slots past a sequence's end, and a masked NaN would still be a NaN.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_pages: int,
        page_size: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, num_pages, page_size, config.num_kv_heads, config.head_dim)
        self.num_pages = num_pages
        self.page_size = page_size
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @staticmethod
    def bytes_per_page(config: ModelConfig, *, dtype: torch.dtype, page_size: int) -> int:
        vectors = 2 * config.num_layers * page_size * config.num_kv_heads
        return vectors * config.head_dim * dtype.itemsize

    def copy_page(self, source: int, target: int) -> None:
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]
