"""The process of a load client: `python -m lapwing.load RECORD`; see `client.py`."""

import sys
from pathlib import Path

from lapwing.load.client import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.stdin.buffer.raw))  # type: ignore[union-attr]
