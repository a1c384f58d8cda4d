"""What this machine has of what a build, a proof and a push need: looked at, never changed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import docker.errors
import requests.exceptions

from builder import gpu
from builder.artifacts import Parts
from builder.docker import secrets
from builder.docker.engine import BUILDX_AT_LEAST, CONTAINERD, Engine, foreign, require_buildx
from builder.errors import BuilderError, MachineError, NoBase, NoProgram, ProjectMissing
from builder.process import redact, run
from builder.project import Project, Target
from builder.reference import Reference
from builder.registry import Registry

SECONDS = 9.0
"""For everything: who asks wants an answer, and a check that hangs is an answer too."""
_REGISTRY_SECONDS = 5.0
"""For one answer of it, once asked: what is slow now is what the user wants to know."""
_FREE_AT_LEAST = 3_000_000_000
_FREE_ENOUGH = 15_000_000_000
"""Bytes that a first build of the embedded base takes, caches included."""
_MEMORY_ENOUGH = 4_000_000_000
"""Bytes that docker-compose.yml allows the server."""
_SHARED_ENOUGH = 64 << 20
_PYTHON_AT_LEAST = (3, 11)
_PACKAGE = "triton-dali-builder"


class State(StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"
    FAILED = "failed"
    """It is there, and does not work."""


@dataclass(frozen=True)
class Result:
    """What was found out about one thing."""

    name: str
    state: State
    what: str
    remedy: str = ""
    """Best a command; empty where all is well."""
    needed: bool = False
    """A build cannot do without it."""

    @property
    def blocks(self) -> bool:
        """Whether a build would fail for it."""
        return self.needed and self.state in (State.MISSING, State.FAILED)

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "state": str(self.state),
            "what": self.what,
            "remedy": self.remedy,
            "needed": self.needed,
        }


class BaseImage(NamedTuple):
    """An image that a target starts from."""

    name: str
    can_be_made: bool
    """By this program, on a Debian machine, where it cannot be pulled."""


Check = Callable[[], Iterable[Result]]


def examine(
    project: Project | None,
    targets: Mapping[str, Target],
    bases: Callable[[Engine], Iterable[BaseImage]] = lambda _: (),
    *,
    problem: BuilderError | None = None,
    gpus: bool = False,
    seconds: float = SECONDS,
) -> list[Result]:
    """Everything that can be said about this machine, within `seconds`.

    Args:
        project: whose registry and bases are looked at; None for a machine without one.
        targets: those of the project that are to be built.
        bases: what they start from, with that engine.
        problem: why there is no project.
        gpus: whether GPUs are wanted.
    """
    engine = _Engine()
    checks: dict[str, Check] = {
        "engine": engine.check,
        "disk": lambda: _disk(engine.get()),
        "buildx": _buildx,
        "compose": _compose,
        "base": lambda: _bases(engine.get(), bases(engine.get())),
        "registry": lambda: _registry(project) if project else (),
        "architecture": lambda: _architecture(engine, targets),
        "gpu": lambda: _gpu(engine, gpus, _cuda(project, targets)),
        "memory": lambda: _memory(engine),
        "python": _python,
        "git": _git,
        "proxy": _proxy,
        "certificates": _certificates,
        "project": lambda: [_project(project, problem)],
    }
    return _at_once(checks, seconds)


def _at_once(checks: Mapping[str, Check], seconds: float) -> list[Result]:
    """The results of all checks, in their order; a check that takes longer has failed."""
    found: dict[str, list[Result]] = {}

    def one(name: str, check: Check) -> None:
        results: list[Result] = []
        try:
            results.extend(check())
        except _NotThere:
            pass  # the engine's own line says so
        except BuilderError as error:
            results.append(_failed(name, error))
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            results.append(_failed(name, foreign(error) or MachineError(str(error))))
        found[name] = results

    # Daemons: nobody waits for one that hangs.
    threads = {name: threading.Thread(target=one, args=(name, check), daemon=True) for name, check in checks.items()}
    deadline = time.monotonic() + seconds
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    in_time = dict(found)  # those that are late may still come
    waiting = () if "engine" in in_time else _OF_THE_ENGINE
    return [
        result for name in checks for result in in_time.get(name, () if name in waiting else [_late(name, seconds)])
    ]


_NEEDED = ("engine", "buildx", "base")
_OF_THE_ENGINE = ("disk", "base", "architecture", "memory")


def _late(name: str, seconds: float) -> Result:
    return Result(
        name, State.FAILED, f"no answer within {seconds:g} s", "try again, or see what it waits for", name in _NEEDED
    )


def _failed(name: str, error: BuilderError, needed: bool | None = None) -> Result:
    state = State.MISSING if error.code.startswith("no-") else State.FAILED
    said = f"{error.what} ({error.where})" if error.where else error.what
    first = f": {error.detail[0]}" if error.detail else ""
    return Result(name, state, said + first, error.remedy, name in _NEEDED if needed is None else needed)


class _NotThere(Exception):
    """The engine, which a check needs."""


class _Engine:
    """The engine, asked once for all checks."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._engine: Engine | None = None
        self.info: dict[str, Any] = {}

    def get(self) -> Engine:
        """Raises _NotThere where there is none."""
        self._asked.wait()
        if self._engine is None:
            raise _NotThere
        return self._engine

    def check(self) -> Iterator[Result]:
        try:
            engine = Engine.connect()
            self.info = engine.client.info()
            self._engine = engine
        finally:
            self._asked.set()
        info, version = self.info, engine.client.version()
        rootless = any("rootless" in option for option in info.get("SecurityOptions") or ())
        containerd = engine.keeps_manifests
        yield Result(
            "engine",
            State.OK,
            f"Docker {version['Version']}, API {version['ApiVersion']}{', rootless' * rootless}, "
            f"{info.get('OperatingSystem', 'unknown system')}",
            needed=True,
        )
        store = f"{'containerd' if containerd else 'classic'}, driver {info.get('Driver', 'unknown')}"
        if containerd:
            yield Result("image store", State.OK, store)
        else:
            yield Result(
                "image store",
                State.OK,
                f"{store}: digests are known after a push only; no reproduce, no rebase, no base that is elsewhere",
                f"set {CONTAINERD} for all of it",
            )


def _disk(engine: Engine) -> Iterator[Result]:
    root = str(engine.client.info().get("DockerRootDir", ""))
    spare = _reclaimable(engine)
    if urlsplit(engine.client.api.base_url).scheme not in ("http+docker", "http+unix") or not Path(root).exists():
        yield Result("disk", State.OK, f"{root}: on another machine{spare}")
        return
    free = shutil.disk_usage(root).free
    what = f"{free / 1e9:.1f} GB free in {root}{spare}"
    if free >= _FREE_ENOUGH:
        yield Result("disk", State.OK, what, needed=True)
        return
    state = State.WARNING if free >= _FREE_AT_LEAST else State.FAILED
    yield Result(
        "disk", state, f"{what}; a first build takes {_FREE_ENOUGH / 1e9:.0f} GB", "docker builder prune", needed=True
    )


def _reclaimable(engine: Engine) -> str:
    """The build cache that nothing uses, which `docker system df` counts."""
    cache = engine.client.df().get("BuildCache") or ()
    unused = sum(entry.get("Size", 0) for entry in cache if not entry.get("InUse") and not entry.get("Shared"))
    return f", {unused / 1e9:.1f} GB more in unused build cache" if unused >= 1e8 else ""


def _buildx() -> Iterator[Result]:
    least = ".".join(map(str, BUILDX_AT_LEAST))
    try:
        require_buildx()
    except NoProgram as error:
        yield Result("buildx", State.MISSING, error.what, "install Docker's command line and its buildx plugin", True)
        return
    found = re.search(r"\bv?(\d+\.\d+\.\d+)", run(["docker", "buildx", "version"]).stdout)
    yield Result("buildx", State.OK, f"{found[1] if found else 'there'} ({least} or newer is needed)", needed=True)


def _compose() -> Iterator[Result]:
    found = run(["docker", "compose", "version", "--short"])
    if found.returncode:
        yield Result(
            "compose",
            State.MISSING,
            "docker has no compose, which `up` and `down` use",
            "install Docker's compose plugin, version 2.20 or newer",
        )
    else:
        yield Result("compose", State.OK, found.stdout.strip())


def _bases(engine: Engine, wanted: Iterable[BaseImage]) -> Iterator[Result]:
    for name, can_be_made in dict.fromkeys(wanted):
        if engine.has_image(name):
            yield Result("base", State.OK, f"{name} is here", needed=True)
            continue
        try:
            # By way of the engine: its network and its credentials are what a pull would have. No layer moves.
            engine.client.images.get_registry_data(name)
            yield Result("base", State.OK, f"{name} can be pulled", needed=True)
        except (docker.errors.APIError, requests.exceptions.RequestException) as error:
            if can_be_made and os.geteuid() == 0 and shutil.which("mmdebstrap"):
                what = f"{name} cannot be pulled; a build makes one from Debian's packages"
                yield Result("base", State.OK, what, needed=True)
                continue
            known = foreign(error, name, NoBase)
            reason = f": {known.detail[0]}" if known and known.detail else ""
            if re.search(r"unauthorized|denied|authentication", reason):
                remedy = f"docker login {Reference.parse(name).host}"
            elif can_be_made:
                remedy = "reach Docker Hub, or set debian_image in builder.toml to a copy of Debian 12"
            else:
                remedy = f"docker pull {name}, from where its registry can be reached"
            yield Result("base", State.MISSING, f"{name} is not here and cannot be pulled{reason}"[:300], remedy, True)


def _registry(project: Project) -> Iterator[Result]:
    home = project.home
    try:
        registry = Registry.connect(home, timeout=_REGISTRY_SECONDS, patience=0)
    except BuilderError as error:
        yield _failed("registry", error)
        return
    secure = "TLS" if registry.url.startswith("https") else "plain HTTP, which is for this machine alone"
    yield Result("registry", State.OK, f"{home.host} answers ({secure})")
    try:
        known = registry.log_in()
        yield Result(
            "credentials",
            State.OK,
            f"none for {home.host}" if known.is_anonymous else f"{known.user or 'a token'} at {home.host}",
        )
    except BuilderError as error:
        yield _failed("credentials", error)
        return
    try:
        there = registry.read()
        yield Result("read", State.OK, f"{home.path} {'can be read' if there else 'does not exist yet'}")
    except BuilderError as error:
        yield _failed("read", error)
    try:
        registry.write()
        yield Result("write", State.OK, f"{home.path} can be written to")
    except BuilderError as error:
        yield _failed("write", error)


_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def _architecture(engine: _Engine, targets: Mapping[str, Target]) -> Iterator[Result]:
    engine.get()
    machine = str(engine.info.get("Architecture", platform.machine()))
    own = _ARCHITECTURES.get(machine, machine)
    foreign_ones = sorted({each.platform for each in targets.values()} - {f"linux/{own}"})
    if foreign_ones:
        yield Result(
            "architecture",
            State.WARNING,
            f"the engine is {own}; {', '.join(foreign_ones)} needs emulation, which is slow",
            "docker run --privileged --rm tonistiigi/binfmt --install all",
        )
    else:
        yield Result("architecture", State.OK, own)


def _cuda(project: Project | None, targets: Mapping[str, Target]) -> dict[str, int]:
    """The CUDA of what would run on GPUs, by what it is; of plugins that are not built yet, that of the toolchain."""
    found: dict[str, int] = {} if targets else {"operators": gpu.CUDA}
    for name, target in targets.items():
        parts = Parts.find(project, name) if project else None
        versions = {f"DALI of target {name}": parts.dali_cuda} if parts else {}
        if parts and target.cuda != "OFF":
            versions |= {f"{plugin.path.rpartition('/')[2]} of target {name}": plugin.cuda for plugin in parts.plugins}
        found |= {what: int(version.partition(".")[0]) for what, version in versions.items() if version}
        if not parts and target.cuda != "OFF":
            found["operators"] = gpu.CUDA
    return found


def _gpu(engine: _Engine, wanted: bool, cuda: Mapping[str, int]) -> Iterator[Result]:
    driver = gpu.find()
    if driver is None or not driver.gpus:
        if wanted:
            yield Result(
                "gpu", State.MISSING, "no GPU that NVIDIA's driver knows", "install NVIDIA's driver", needed=True
            )
        else:
            yield Result("gpu", State.OK, "none; not needed: operators are compiled without one")
        return
    names = ", ".join(sorted({f"{each.name} (sm_{each.capability.replace('.', '')})" for each in driver.gpus}))
    what = f"{len(driver.gpus)} x {names}, driver {driver.version}, CUDA {driver.cuda or 'unknown'}"
    too_new = [name for name in cuda if not driver.runs(cuda[name])]
    if not too_new:
        yield Result("gpu", State.OK, what)
    else:
        newest = max(cuda[name] for name in too_new)
        yield Result(
            "gpu",
            State.FAILED if wanted else State.WARNING,
            f"{what}: too old for CUDA {newest}, which has compiled {', '.join(too_new)}",
            f"update NVIDIA's driver to {gpu.driver_for(newest)} or newer",
            needed=wanted,
        )
    engine.get()
    if how := gpu.toolkit(engine.info):
        yield Result("gpu toolkit", State.OK, f"the engine gives GPUs to containers ({how})")
    else:
        yield Result(
            "gpu toolkit",
            State.MISSING,
            "the engine cannot give a GPU to a container",
            "install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker",
            needed=wanted,
        )


def _memory(engine: _Engine) -> Iterator[Result]:
    shared = Path("/dev/shm")
    size = shutil.disk_usage(shared).total if shared.is_dir() else 0
    if size >= _SHARED_ENOUGH:
        yield Result("shared memory", State.OK, f"/dev/shm has {size / 1e9:.1f} GB; a container has its own")
    else:
        yield Result(
            "shared memory", State.WARNING, "this machine has next to no /dev/shm", "mount -o remount,size=1g /dev/shm"
        )
    engine.get()
    memory = int(engine.info.get("MemTotal") or 0)
    enough = memory >= _MEMORY_ENOUGH
    yield Result(
        "memory",
        State.OK if enough else State.WARNING,
        f"{memory / 1e9:.1f} GB, {engine.info.get('NCPU', '?')} CPUs",
        "" if enough else f"compose allows the server {_MEMORY_ENOUGH / 1e9:.0f} GB; set MEMORY to less",
    )


def _python() -> Iterator[Result]:
    version = platform.python_version()
    if sys.version_info < _PYTHON_AT_LEAST:
        yield Result("python", State.FAILED, f"Python {version} is too old", "install Python 3.11 or newer", True)
        return
    differing = sorted(_differing())
    if differing:
        yield Result(
            "python", State.WARNING, f"Python {version}; not as locked: {', '.join(differing)}", "pip install -e ."
        )
    else:
        yield Result("python", State.OK, f"Python {version}, packages as locked")


def _differing() -> Iterator[str]:
    """Packages whose version is not the one that this program asks for."""
    try:
        wanted = importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return  # run from its sources: nothing says what it wants
    for requirement in wanted:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", requirement)
        if not match:
            continue
        try:
            found = importlib.metadata.version(match[1])
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found != match[2]:
            yield f"{match[1]} {found} for {match[2]}"


def _git() -> Iterator[Result]:
    if shutil.which("git") is None:
        yield Result("git", State.WARNING, "not on PATH: images have no revision label", "install git")
    else:
        yield Result("git", State.OK, run(["git", "--version"]).stdout.strip().removeprefix("git version "))


def _proxy() -> Iterator[Result]:
    values = {name: os.environ[name] for name in secrets.PROXIES if os.environ.get(name)}
    told = ", ".join(f"{name}={_redacted(value)}" for name, value in values.items())
    yield Result("proxy", State.OK, told or "none")


def _redacted(value: str) -> str:
    """Also where the scheme is left out, as some programs allow: user:password@host."""
    return redact(value) if "://" in value else re.sub(r"^[^/@]*@", "***@", value)


def _certificates() -> Iterator[Result]:
    named = os.environ.get("SSL_CERT_FILE")
    if named and not Path(named).is_file():
        yield Result(
            "certificates", State.WARNING, f"SSL_CERT_FILE names {named}, which is not there", "unset SSL_CERT_FILE"
        )
        return
    given = [each for each in secrets.from_machine().secrets if each.startswith("id=ca,src=")]
    if given:
        yield Result("certificates", State.OK, f"{given[0].removeprefix('id=ca,src=')} goes into the build as a secret")
    else:
        yield Result(
            "certificates",
            State.WARNING,
            "this machine has no CA bundle: a build trusts what its base trusts",
            "apt-get install ca-certificates",
        )


def _project(project: Project | None, problem: BuilderError | None) -> Result:
    if project is not None:
        return Result("project", State.OK, f"{project.name}, targets {', '.join(project.targets)}")
    if problem is None or isinstance(problem, ProjectMissing):
        return Result(
            "project",
            State.WARNING,
            "no builder.toml here: registry and bases were not looked at",
            "go to a project, or make one: python -m builder init",
        )
    return Result("project", State.FAILED, f"{problem.what} ({problem.where})", problem.remedy, needed=True)
