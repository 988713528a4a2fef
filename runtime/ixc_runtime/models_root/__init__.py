"""Models by name under one folder: found, staged, verified, published. Free of torch.

names.py      which ids there may be
disk.py       every operation on files, one method each: the seam where tests make them fail
manifest.py   what a published folder says of itself, and whether that is true
staging.py    a model in the making: durable file by file, resumable
publishing.py the moment it appears, and the clearing up before and after
root.py       the folder as a whole
"""

from ixc_runtime.models_root.disk import Disk
from ixc_runtime.models_root.manifest import MANIFEST_NAME, Manifest
from ixc_runtime.models_root.names import MODEL_ID_RULE, is_model_id
from ixc_runtime.models_root.root import ModelsRoot, NamedFolders, StoredModel
from ixc_runtime.models_root.staging import Staging

__all__ = [
    "MANIFEST_NAME",
    "MODEL_ID_RULE",
    "Disk",
    "Manifest",
    "ModelsRoot",
    "NamedFolders",
    "Staging",
    "StoredModel",
    "is_model_id",
]
