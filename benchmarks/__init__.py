"""Speed and memory, ours against the textbook way: `python -m benchmarks NAME`.

The textbook forms are the slow twins of the tests, so these are found beside this package.
"""

import sys
from pathlib import Path

from pixcloud.machine import let_threads_sleep

let_threads_sleep()  # as the command line does, and for both sides
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
