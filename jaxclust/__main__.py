"""`python -m jaxclust` is the command."""

import sys

from jaxclust.main import cli

if __name__ == "__main__":
    sys.exit(cli())
