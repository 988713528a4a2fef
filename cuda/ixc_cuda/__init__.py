"""CUDA kernels launched from Python, and the layouts of the tensors they take.

Knows arrays; knows no model and no requests. Importing it is free; a launcher's module loads torch,
and CuPy and the driver come with the first kernel, so that everything imports without a GPU.
"""
