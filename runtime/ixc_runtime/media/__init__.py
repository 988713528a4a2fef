"""Pictures on their way in: how many tiles they make, the transform, and who decodes them.

`geometry` is arithmetic and free to call anywhere. Pillow is imported by `transform` and the
worker process alone: untrusted bytes are never decoded in the front end.
"""
