"""Serves a pushed image with docker-compose.yml."""

from __future__ import annotations

import re
from collections.abc import Sequence

from builder.docker.engine import engine_failure
from builder.errors import MachineError, ServerDied
from builder.process import Completed, run
from builder.project import Project
from builder.triton import explain

SERVICE = "triton"


def up(project: Project, image: str, profiles: Sequence[str] = ()) -> dict[str, str]:
    """Starts the service from `image` and waits until it is healthy.

    Returns:
        where each protocol listens, as host:port.

    Raises:
        PortInUse, MachineError: compose could not start it.
        ServerDied: the server did not become healthy.
    """
    environment = {"IMAGE": image}
    done = _compose(
        project, profiles, ["up", "--detach", "--no-build", "--pull=missing", "--wait", SERVICE], environment
    )
    if done.returncode:
        log = _compose(
            project, profiles, ["logs", "--no-color", "--no-log-prefix", "--tail=60", SERVICE], environment
        ).stdout.splitlines()
        failure = _why(done, log, image)
        _compose(project, profiles, ["rm", "--stop", "--force", SERVICE], environment)
        raise failure
    ports = {"http": "8000", "grpc": "8001", "metrics": "8002"}
    return {
        name: _compose(project, profiles, ["port", SERVICE, port], environment).stdout.strip()
        for name, port in ports.items()
    }


def down(project: Project) -> None:
    """Stops and removes everything that compose started; volumes stay.

    Raises:
        MachineError: compose could not.
    """
    _compose(project, ["*"], ["down", "--remove-orphans"], {}).check(remedy="see its message")


def _compose(
    project: Project, profiles: Sequence[str], arguments: Sequence[str], environment: dict[str, str]
) -> Completed:
    chosen = [f"--profile={profile}" for profile in profiles]
    return run(
        ["docker", "compose", "--progress=quiet", "--project-directory", str(project.root), *chosen, *arguments],
        env=environment,
    )


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
            detail=meaning.evidence if meaning else log[-20:],
        )
    return MachineError(
        "docker compose could not start the service", where=image, remedy="see its message", detail=done.stderr
    )
