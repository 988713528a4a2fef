"""CUDA kernels launched from Python, and the layouts of the tensors they take.

Knows arrays; knows no model and no requests. Importing it is free: torch and CuPy are imported
inside the functions that need them, so that it works on a machine with neither.
"""
