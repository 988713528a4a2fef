"""The real server with the synthetic engine behind it: `python -m tests.fakes.synthetic_server`.

Takes the flags of `python -m ixc_service`; everything but the model is the product's own.
"""

import sys

from ixc_runtime.engine_process import link
from ixc_service.__main__ import main

if __name__ == "__main__":
    link.ENGINE_MODULE = "tests.fakes.synthetic_engine"
    sys.exit(main())
