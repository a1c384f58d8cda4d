"""The two that are measured: this program, and a Dockerfile written by hand with plain docker commands."""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.daily.commands import Ran, run
from bench.daily.projects import MODEL, ROOT, TARGET
from builder import journal
from builder.docker.secrets import from_machine

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.005
_BYTES = 1000
_COMPILES = "compile the plugins"
"""What the step is called in which the compiler runs; one that is taken from the cache is not told of."""
BUILDER = (sys.executable, "-m", "builder")


@dataclass(frozen=True)
class Phase:
    """Where a command's time went."""

    of: str
    """The command, such as `build`."""
    title: str
    began: float
    """Seconds after the command began."""
    seconds: float
    """0: it was said then, and that is all that is known."""


@dataclass
class Ours:
    """This program, on a project."""

    project: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    """Of the commands since they were last taken."""
    compiled: bool = False
    """Whether the compiler ran in the last build, as far as that build told of it."""

    def run(self, command: str, *arguments: str) -> Ran:
        """Raises CommandFailed, as the others here do."""
        ran = self._run(command, *arguments)
        self.phases += _said(command, ran)
        return ran

    def build(self, *arguments: str) -> float:
        before = {each.id for each in journal.entries()}
        ran = self._run("build", *arguments)
        made = [
            Phase(f"build {entry.target}", step.title, step.began, step.seconds)
            for entry in journal.entries()
            if entry.id not in before
            for step in entry.steps
            if not step.cached
        ]
        told = made or _said("build", ran)
        self.phases += told
        self.compiled = any(_COMPILES in each.title for each in told)
        return ran.seconds

    def smoke(self) -> float:
        return self.run("smoke").seconds

    def push(self) -> tuple[float, int]:
        """The seconds, and the bytes that had to be sent."""
        ran = self.run("push", "--json")
        (pushed,) = json.loads(ran.stdout)["pushed"]
        return ran.seconds, int(pushed["bytes_uploaded"])

    def base(self) -> str:
        """The image that the last build put its layers on."""
        parts = json.loads((self.project / ".builder" / TARGET / "parts.json").read_text())
        return str(parts["base"])

    def taken(self) -> list[Phase]:
        """The phases, which are then forgotten."""
        phases, self.phases = self.phases, []
        return phases

    def _run(self, command: str, *arguments: str) -> Ran:
        return run([*BUILDER, command, "-C", self.project, *arguments], cwd=ROOT, environment=self.environment)


def _said(command: str, ran: Ran) -> list[Phase]:
    return [Phase(command, line, seconds, 0.0) for seconds, line in ran.said if line.strip()]


@dataclass(frozen=True)
class Rival:
    """The Dockerfile that is written by hand, and the commands that go with it."""

    project: Path
    image: str
    """Its name, with a registry's address where it is to be pushed."""
    base: str = ""
    """The image that it is built on; empty where it makes that itself."""
    debian: str = ""
    """What that base starts from then."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def build(self) -> float:
        # The same compression as ours: gzip, the default, is the slower one.
        output = f"type=image,name={self.image},compression=zstd,oci-mediatypes=true"
        return self._build("Dockerfile", "served", output).seconds

    def floors(self) -> dict[str, float]:
        """Seconds of `compile` and `serialize`, measured inside the build after that of the same sources."""
        with tempfile.TemporaryDirectory() as folder:
            self._build("floors.Dockerfile", "floors", f"type=local,dest={folder}")
            return {path.name: float(path.read_text()) for path in sorted(Path(folder).iterdir())}

    def verify(self) -> dict[str, float]:
        """Starts the image, asks it once, and takes it away; seconds of `start`, `inference` and `remove`."""
        began = time.perf_counter()
        container = self._docker("run", "--detach", "--publish=127.0.0.1::8000", self.image).stdout.strip()
        try:
            address = self._docker("port", container, "8000/tcp").stdout.split()[0]
            _wait_until_ready(address, container)
            ready = time.perf_counter()
            _ask(address)
            answered = time.perf_counter()
        finally:
            self._docker("rm", "--force", container)
        return {"start": ready - began, "inference": answered - ready, "remove": time.perf_counter() - answered}

    def push(self) -> float:
        return self._docker("push", "--quiet", self.image).seconds

    def _build(self, dockerfile: str, stage: str, output: str) -> Ran:
        network = from_machine()
        base = [f"--build-context=embedded=docker-image://{self.base}"] if self.base else []
        arguments = [f"--build-arg=DEBIAN_IMAGE={self.debian}"] if self.debian else []
        command = [
            "docker",
            "buildx",
            "build",
            f"--file={self.project / dockerfile}",
            f"--target={stage}",
            *base,
            *arguments,
        ]
        command += [f"--secret={each}" for each in network.secrets]
        command += [f"--build-arg={name}" for name in network.proxies]
        command += ["--provenance=false", "--progress=plain", f"--output={output}", str(self.project)]
        return run(command, environment={**self.environment, **network.environment})

    def _docker(self, *arguments: str) -> Ran:
        return run(["docker", *arguments], environment=self.environment)


def _wait_until_ready(address: str, container: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            if _answer(address, "GET", "/v2/health/ready")[0] == http.client.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{container} was not ready after {_READY_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def _ask(address: str) -> None:
    """One inference, as curl would do it."""
    data = [number % 256 for number in range(_BYTES)]
    tensor = {"name": "DALI_INPUT_0", "datatype": "UINT8", "shape": [1, _BYTES], "data": data}
    status, answer = _answer(address, "POST", f"/v2/models/{MODEL}/infer", {"inputs": [tensor]})
    assert status == http.client.OK, answer
    assert json.loads(answer)["outputs"][0]["data"] == data, "not the bytes that were sent"


def _answer(address: str, method: str, path: str, document: Any = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, None if document is None else json.dumps(document))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
