"""`python -m cgrnn` is the command `cgrnn`."""

import sys

from cgrnn.cli import main

sys.exit(main())
