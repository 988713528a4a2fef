"""From logits to token ids: a pure function of the logits, the settings and (seed, position)."""
