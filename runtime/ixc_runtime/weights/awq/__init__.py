"""Rounding to 4 bits: activation-aware (AWQ) with adapters compensated, or plainly.

`layerwise` takes one layer after another: calibrate, search, write. `moments` are what each
linear's inputs looked like, `search` finds scales that suit them and where to clip, `smoothing`
moves the scales into the weights, adapters included, and `feedback` chooses levels so that columns
make good each other's errors. `precision` says how exact products are meanwhile on a GPU.
"""

from ixc_runtime.weights.awq.layerwise import quantize

__all__ = ["quantize"]
