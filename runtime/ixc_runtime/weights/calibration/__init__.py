"""Samples to calibrate and to measure with: built-in ones, and any as the model would meet them."""

from ixc_runtime.weights.calibration.layout import lay_out_samples
from ixc_runtime.weights.calibration.samples import calibration_samples, held_out_samples

__all__ = ["calibration_samples", "held_out_samples", "lay_out_samples"]
