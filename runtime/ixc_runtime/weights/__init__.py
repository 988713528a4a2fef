"""Long work on a model's weights: merging adapters into them, rounding them to 4 bits.

    merge.merge, peft.load_peft_adapter, awq.quantize   make tensors, shard by shard
    quality.check_merged, quality.measure_quality       say how far the result is from its source

All of it streams: one shard or one decoder layer is in memory at a time, whatever the model's
size. Nothing here knows of jobs, names or publication: it reads a model folder, writes through an
`Output`, and tells a `Report` how far it is. What this file names is free of torch.
"""

from ixc_runtime.weights.figures import (
    Agreement,
    AgreementFigures,
    Drift,
    MergeSummary,
    QualityFigures,
    QuantizeSummary,
)
from ixc_runtime.weights.progress import Output, Report
from ixc_runtime.weights.settings import (
    MergeSettings,
    ProbeSettings,
    QuantizeMethod,
    QuantizeSettings,
    Sample,
)

__all__ = [
    "Agreement",
    "AgreementFigures",
    "Drift",
    "MergeSettings",
    "MergeSummary",
    "Output",
    "ProbeSettings",
    "QualityFigures",
    "QuantizeMethod",
    "QuantizeSettings",
    "QuantizeSummary",
    "Report",
    "Sample",
]
