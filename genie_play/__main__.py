"""`python -m genie_play`."""

import sys

from genie_play.cli import main

if __name__ == "__main__":
    sys.exit(main())
