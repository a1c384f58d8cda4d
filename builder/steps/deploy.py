"""Serves a pushed image with docker-compose.yml."""

from __future__ import annotations

import re
from collections.abc import Sequence

from builder import package
from builder.docker.engine import engine_failure
from builder.errors import MachineError, ServerDied
from builder.process import Completed, run, uninterrupted
from builder.project import Project
from builder.triton import explain, last_words

_PORTS = {"http": "8000", "grpc": "8001", "metrics": "8002"}
_PROFILE = "gpu"
"""Without the registry's: that is not ours to stop."""


def up(project: Project, image: str, service: str, timeout: int) -> dict[str, str]:
    """Starts the service from `image` and waits until it is healthy, for `timeout` seconds at most.

    Returns:
        where each protocol listens, as host:port.

    Raises:
        PortInUse, MachineError: compose could not start it.
        ServerDied: the server did not become healthy.
    """
    environment = {"IMAGE": image}
    wait = ["--wait", f"--wait-timeout={timeout}"]
    try:
        done = _compose(project, ["up", "--detach", "--no-build", "--pull=missing", *wait, service], environment)
        if done.returncode:
            log = _compose(project, ["logs", "--no-color", "--no-log-prefix", "--tail=60", service], environment)
            raise _why(done, log.stdout.splitlines(), image)
    except BaseException:
        with uninterrupted():
            # Killed, as nobody can have relied on it yet: one that is still loading takes its time to stop.
            _compose(project, ["kill", service], environment)
            _compose(project, ["rm", "--force", service], environment)
        raise
    return {
        name: _compose(project, ["port", service, port], environment).stdout.strip() for name, port in _PORTS.items()
    }


def down(project: Project) -> None:
    """Stops and removes what `up` started.

    Raises:
        MachineError: compose could not.
    """
    _compose(project, ["down"], {}).check(remedy="see its message")


def _compose(project: Project, arguments: Sequence[str], environment: dict[str, str]) -> Completed:
    file = package.compose_file(project.root)
    settings = [
        "--progress=quiet",
        f"--profile={_PROFILE}",
        f"--project-directory={project.root}",
        f"--file={file}",
    ]
    if file.parent != project.root:  # not the project's own, which may have a name
        settings.append(f"--project-name={re.sub(r'[^a-z0-9_-]', '-', project.name)}")
    return run(["docker", "compose", *settings, *arguments], env=environment)


def _why(done: Completed, log: list[str], image: str) -> MachineError | ServerDied:
    said = "\n".join(done.stderr)
    if re.search(r"port is already allocated|address already in use", said):
        failure = engine_failure(said.splitlines()[-1], image)
        failure.remedy = "stop what listens there, or choose others with HTTP_PORT, GRPC_PORT and METRICS_PORT"
        assert isinstance(failure, MachineError)
        return failure
    meaning = explain(log)
    if meaning or "unhealthy" in said or "exited" in said:
        return ServerDied(
            "the service did not become healthy" + (f": {meaning.what}" if meaning else ""),
            where=image,
            remedy=meaning.remedy if meaning else "see the last lines of its log",
            detail=meaning.evidence if meaning else last_words(log),
        )
    return MachineError(
        "docker compose could not start the service", where=image, remedy="see its message", detail=done.stderr
    )
