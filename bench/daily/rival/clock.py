"""clock.py NAME COMMAND...: runs the command, and leaves the seconds that it took in /floors/NAME."""

import pathlib
import subprocess
import sys
import time

began = time.perf_counter()
subprocess.run(sys.argv[2:], check=True)
seconds = time.perf_counter() - began
folder = pathlib.Path("/floors")
folder.mkdir(exist_ok=True)
(folder / sys.argv[1]).write_text(f"{seconds}\n")
