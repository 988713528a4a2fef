"""The rotary base of a sequence under dynamic NTK scaling. Free of torch.

The reference rebuilds its tables whenever a longer sequence comes by, so that a sequence depends
on its predecessors, and its own cached keys stay rotated by the old base. Here the base is fixed
when a sequence starts, from the length of its prompt alone, and nothing is shared.
"""

from ixc_runtime.config import ModelConfig


def rotary_base(config: ModelConfig, prompt_length: int) -> float:
    """Base of the rotary frequencies: the config's own up to the native length, larger beyond.

    base * (factor * length / native - (factor - 1)) ** (d / (d - 2))
    """
    native, factor = config.max_position_embeddings, config.rope_scaling_factor
    if factor is None or prompt_length <= native or config.head_dim <= 2:
        return config.rope_theta
    stretch = factor * prompt_length / native - (factor - 1)
    return float(config.rope_theta * stretch ** (config.head_dim / (config.head_dim - 2)))
