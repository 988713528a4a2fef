"""The model: decoder, adapters and image tower over a small set of operations (`ixc_runtime.ops`).

Importing the package costs nothing; its modules import torch.
"""
