"""`python -m ixc_cli` is `ixc`."""

import sys

from ixc_cli.main import main

sys.exit(main())
