"""A package index on this machine with the wheels of all targets: downloads that are warm, whatever the network keeps.

pip's own cache is no help where an index forbids to keep its answers, as mirrors may.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.daily.commands import run
from bench.daily.limits import say
from bench.daily.projects import ROOT
from builder.docker.secrets import from_machine

_REQUIREMENTS = ROOT / "embedded" / "requirements"
_FILES = ("triton.txt", "toolchain.txt", "dali-1.53.0.txt", "dali-2.1.1.txt")
_DOCKERFILE = """
ARG DEBIAN_IMAGE
FROM ${DEBIAN_IMAGE} AS download
RUN --mount=type=secret,id=ca <<END
    set -e
    if [ -s /run/secrets/ca ]; then echo 'Acquire::https::CAInfo "/run/secrets/ca";' >/etc/apt/apt.conf.d/ca; fi
    apt-get update -q
    apt-get install -qy --no-install-recommends python3-pip
END
COPY . /requirements
RUN --mount=type=secret,id=ca --mount=type=secret,id=pip <<END
    set -e
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi
    if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi
    for each in /requirements/*.txt; do
        python3 -m pip download --quiet --no-cache-dir --no-deps --only-binary=:all: --dest /wheels -r $each
    done
END
FROM scratch
COPY --from=download /wheels /
"""


def fetched(folder: Path, debian: str) -> Path:
    """The wheels, one folder for each package in `folder`; downloaded where they are not there from an earlier run."""
    wanted = hashlib.sha256(b"".join((_REQUIREMENTS / name).read_bytes() for name in _FILES)).hexdigest()[:12]
    index = folder / f"wheels-{wanted}"
    if index.is_dir():
        return index
    say("downloading the wheels of all targets")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        context, wheels, made = (Path(temporary, name) for name in ("context", "wheels", "made"))
        context.mkdir()
        for name in _FILES:
            shutil.copy2(_REQUIREMENTS / name, context)
        (context.parent / "Dockerfile").write_text(_DOCKERFILE)
        network = from_machine()
        command = [
            "docker",
            "buildx",
            "build",
            f"--file={context.parent / 'Dockerfile'}",
            f"--build-arg=DEBIAN_IMAGE={debian}",
        ]
        command += [f"--secret={each}" for each in network.secrets]
        command += [f"--build-arg={name}" for name in network.proxies]
        run([*command, f"--output=type=local,dest={wheels}", str(context)], environment=network.environment)
        for wheel in wheels.iterdir():
            place = made / normalized(wheel.name.partition("-")[0])
            place.mkdir(parents=True, exist_ok=True)
            wheel.rename(place / wheel.name)
        made.rename(index)
    return index


def normalized(name: str) -> str:
    """A package's name as an index has it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@contextlib.contextmanager
def served(index: Path, address: str) -> Iterator[None]:
    """Serves the wheels at an address of this machine, and makes them the index of every build meanwhile."""
    handler = functools.partial(_Silent, directory=str(index))
    with ThreadingHTTPServer((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.server_address[1]
        no_proxy = {name: ",".join(filter(None, [os.environ.get(name), address])) for name in ("no_proxy", "NO_PROXY")}
        index_of_pip = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": f"http://{address}:{port}/",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_TRUSTED_HOST": address,
        }
        try:
            with _environment({**index_of_pip, **no_proxy}):
                yield
        finally:
            server.shutdown()
            thread.join()


class _Silent(SimpleHTTPRequestHandler):
    """Folders as lists of links, which is all that pip needs."""

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(ConnectionError):  # a build that was stopped
            super().copyfile(source, outputfile)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
