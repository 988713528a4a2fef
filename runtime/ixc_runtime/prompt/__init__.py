"""Text on its way in and out: tokenizers, the layout of a prompt, decoding of the answer.

Knows characters and token ids; knows no arrays, no engine, no wire.
"""
