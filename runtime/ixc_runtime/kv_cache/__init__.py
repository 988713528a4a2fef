"""Which page holds which tokens. Knows no tensors: the arena they index is the model's."""
