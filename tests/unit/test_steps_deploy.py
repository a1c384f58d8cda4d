from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest

from builder import package
from builder.errors import BuilderError, MachineError, PortInUse, ServerDied
from builder.process import Completed
from builder.project import Project
from builder.steps import deploy

IMAGE = "localhost:5000/mydali@sha256:" + "a" * 64


class Compose:
    """In place of `builder.process.run`: notes the commands, and fails at `up` as it is told to."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.options: dict[str, str] = {}
        self.fails: tuple[str, ...] = ()
        self.raises: BaseException | None = None
        self.log = ""

    def __call__(self, command: Sequence[str], *, env: Mapping[str, str]) -> Completed:
        options = list(itertools.takewhile(lambda word: word.startswith("--"), command[2:]))
        words = list(command[2 + len(options) :])
        self.options.update(option.split("=", 1) for option in options)
        self.commands.append(words)
        self.environments.append(env)
        if words[0] in ("up", "down") and self.raises:
            raise self.raises
        failed = bool(self.fails) and words[0] in ("up", "down")
        stdout = {"port": f"127.0.0.1:{words[-1]}\n", "logs": self.log}.get(words[0], "")
        return Completed("docker compose", int(failed), stdout, self.fails if failed else ())

    @property
    def verbs(self) -> list[str]:
        return [words[0] for words in self.commands]


@pytest.fixture
def compose(monkeypatch: pytest.MonkeyPatch) -> Compose:
    monkeypatch.setattr(deploy, "run", made := Compose())
    return made


def test_a_service_that_is_healthy_stays_and_tells_its_ports(project: Project, compose: Compose) -> None:
    assert deploy.up(project, IMAGE, "triton", 9) == {
        "http": "127.0.0.1:8000",
        "grpc": "127.0.0.1:8001",
        "metrics": "127.0.0.1:8002",
    }
    assert compose.verbs == ["up", "port", "port", "port"]
    assert {"--no-build", "--wait", "--wait-timeout=9"} < set(compose.commands[0])
    assert all(environment == {"IMAGE": IMAGE} for environment in compose.environments)


@pytest.mark.parametrize(
    ("said", "log", "expected", "what"),
    [
        ("Bind for 127.0.0.1:8000 failed: port is already allocated", "", PortInUse, "port 8000"),
        ("container mydali-triton-1 is unhealthy", "", ServerDied, "did not become healthy"),
        ("container exited (1)", "last words", ServerDied, "did not become healthy"),
        ("?", 'No schema found for operator "X"', ServerDied, "operator X"),
        ("manifest unknown", "", MachineError, "could not start"),
    ],
)
def test_a_service_that_fails_is_removed_and_told_by_why(
    project: Project, compose: Compose, said: str, log: str, expected: type[BuilderError], what: str
) -> None:
    compose.fails, compose.log = (said,), log
    with pytest.raises(expected, match=what) as failure:
        deploy.up(project, IMAGE, "triton", 9)
    assert type(failure.value) is expected
    assert compose.verbs == ["up", "logs", "kill", "rm"]
    assert compose.commands[-2:] == [["kill", "triton"], ["rm", "--force", "triton"]]


def test_an_interrupted_service_is_removed(project: Project, compose: Compose) -> None:
    compose.raises = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        deploy.up(project, IMAGE, "triton-gpu", 9)
    assert compose.commands[1:] == [["kill", "triton-gpu"], ["rm", "--force", "triton-gpu"]]


def test_the_registry_is_not_ours_to_stop(project: Project, compose: Compose) -> None:
    deploy.down(project)
    assert (compose.commands, compose.options["--profile"]) == ([["down"]], "gpu")


def test_the_program_s_compose_file_serves_a_project_under_its_own_name(project: Project, compose: Compose) -> None:
    named = Project.model_validate({**dict(project), "repository": "localhost:5000/team/my.blur"})
    deploy.down(named)
    assert compose.options["--file"] == str(package.ROOT / "docker-compose.yml")
    assert (compose.options["--project-directory"], compose.options["--project-name"]) == (str(named.root), "my-blur")


def test_a_project_s_own_compose_file_keeps_its_name(project: Project, compose: Compose) -> None:
    (project.root / "docker-compose.yml").write_text("name: mine\n")
    deploy.down(project)
    assert compose.options["--file"] == str(project.root / "docker-compose.yml")
    assert "--project-name" not in compose.options


def test_a_service_that_cannot_be_stopped_is_told(project: Project, compose: Compose) -> None:
    compose.fails = ("why",)
    with pytest.raises(MachineError) as failure:
        deploy.down(project)
    assert failure.value.detail == ("why",)
