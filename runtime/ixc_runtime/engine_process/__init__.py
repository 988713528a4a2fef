"""The engine as a process of its own: the loop around the model, and the socket to it."""
