"""The console script `kerasrobust-tui`."""

from __future__ import annotations

import sys


def main() -> int:
    """Says that the terminal UI isn't there yet, and what is."""
    print(
        "kerasrobust-tui: the terminal UI is not there yet. Use the command line: kerasrobust --help.", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
