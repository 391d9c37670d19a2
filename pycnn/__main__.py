"""``python -m pycnn``."""

import sys

from pycnn.cli import main

sys.exit(main())
