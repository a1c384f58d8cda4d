"""Runs in the stage `models`: loads every plugin as the server will, and prints what the image is made of, as JSON."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
from pathlib import Path


def main(models: Path) -> int:
    """Prints {"triton", "dali", "plugins"}; 1 if a plugin does not load."""
    import nvidia.dali.backend  # its libraries must be there before a plugin's undefined symbols are looked up

    plugins = []
    for library in sorted(models.glob("*.so")):
        installed = f"/models/{library.name}"
        try:
            ctypes.CDLL(installed, mode=os.RTLD_NOW | os.RTLD_LOCAL)
        except OSError as error:
            print(f"facts: error: {installed}: {error}", file=sys.stderr)
            return 1
        content = library.read_bytes()
        plugins.append(
            {
                "path": installed,
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "gpu": b"\0.nv_fatbin\0" in content,  # the section that holds code for GPUs
            }
        )
    versions = {"triton": os.environ.get("NVIDIA_TRITON_SERVER_VERSION", ""), "dali": nvidia.dali.__version__}
    print(json.dumps({**versions, "plugins": plugins}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
