"""Sluice's command line. Parses, loads the configuration, calls; the exit code says how it went."""

import sys

from engine.cli import main

if __name__ == "__main__":
    sys.exit(main())
