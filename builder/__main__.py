"""`python -m builder`."""

import gc
import os
import signal

# Ctrl-C while the commands are still being imported: there is nothing to clean up, and no traceback to show.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

# What is imported stays until the end: to look for garbage among it, again and again, takes a sixth of a short command.
gc.disable()
from builder.cli import main  # noqa: E402

gc.freeze()
gc.enable()

if __name__ == "__main__":
    main()
