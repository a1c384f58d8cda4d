"""`python -m builder`."""

import os
import signal

# Ctrl-C while the commands are still being imported: there is nothing to clean up, and no traceback to show.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from builder.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
