"""Pictures and clips on their way in: how many tiles they make, and who decodes them.

`geometry`, `video` and `formats` are arithmetic and free to call anywhere. Pillow and decord are
imported for the worker processes alone: untrusted bytes are never decoded in the front end.
"""
