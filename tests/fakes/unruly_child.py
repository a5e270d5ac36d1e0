"""The real analysis child, except that it does what a file says when its first request comes.

    python -m tests.fakes.unruly_child FATE_FILE SOCKET

The file holds a fate and a word: `once` removes it, so that the next child is well behaved.
"""

import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from validators.analysis.__main__ import main as well_behaved


def crash() -> None:
    os._exit(3)


def hang() -> None:
    time.sleep(600)


def grow() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(16 << 20))


FATES: dict[str, Callable[[], None]] = {"crash": crash, "hang": hang, "grow": grow}


def main() -> None:
    fate_file = Path(sys.argv.pop(1))
    select.select([int(sys.argv[1])], [], [])
    if fate_file.exists():
        fate, how_often = fate_file.read_text().split()
        if how_often == "once":
            fate_file.unlink()
        FATES[fate]()
    well_behaved()


if __name__ == "__main__":
    main()
