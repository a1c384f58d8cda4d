"""From sources to answers, again and again: each round makes what has changed, and no more."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from builder import gpu, oracles, pbtxt, recipe, triton
from builder.checks import placement
from builder.dev import answers, server, workshop
from builder.dev.answers import Answered
from builder.dev.folder import ModelFolder
from builder.dev.server import LiveServer
from builder.dev.snapshot import Snapshot, oracle_files
from builder.dev.verdict import Done
from builder.dev.workshop import Workshop
from builder.docker.engine import Engine
from builder.errors import ModelNotLoaded, VerificationError
from builder.oracles import Oracle
from builder.project import MODELS, Project, Target

_WITHOUT_GPU = "80-real"
"""One architecture is as good as another where no GPU runs it: the compiler finds the same mistakes."""


@dataclass(frozen=True)
class Foundation:
    """The images that a target's rounds go on in."""

    base: str
    """What serves."""
    toolchain: str
    """What compiles and serializes."""


@dataclass
class Round:
    """What one round did so far; it may end in the middle."""

    done: list[Done] = field(default_factory=list)
    models: tuple[Answered, ...] = ()
    not_run: dict[str, str] = field(default_factory=dict)
    """Models that are left out, each with the reason."""


class Session:
    """A workshop and a server, for the length of a `with`."""

    def __init__(
        self, engine: Engine, folder: Path, console: Console, *, gpus: str = "", seed: int = 0, timeout: float = 120.0
    ) -> None:
        self.server: LiveServer | None = None
        self._engine = engine
        self._console = console
        self._gpus = gpus
        self._seed = seed
        self._timeout = timeout
        self._all = ExitStack()
        self._folder = ModelFolder(folder)
        self._all.callback(self._folder.close)
        self._foundation: Foundation | None = None
        self._workshop: tuple[Workshop, ExitStack] | None = None
        self._serving: ExitStack | None = None
        self._former: list[ExitStack] = []
        self._oracles: tuple[str, dict[str, Oracle]] = ("", {})
        self._right: dict[str, str] = {}
        """Models whose answers were right, and when they were."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.close()

    def round(
        self,
        project: Project,
        target: Target,
        foundation: Foundation,
        now: Snapshot,
        changed: Sequence[str],
        into: Round,
    ) -> None:
        """Makes what runs the same as the files in `now`, asks the models that are no longer the same; tells `into`.

        Raises:
            CompileError, SerializeError: a source is wrong.
            ModelNotLoaded, ServerDied, NotReady: a server does not take what was made. The former one goes on.
            OracleMissing, GoldenInvalid, OracleFailed: what should say what is right cannot.
            InferenceFailed, WrongAnswer: an answer is wrong.
            VerificationError: there is no model that could be asked.
            Moved: a file is no longer as in `now`.
        """
        if foundation != self._foundation:
            self._move(foundation, into)
        assert self._workshop is not None
        shop, _ = self._workshop
        with self._timed(into, "compiled", "compiling") as step:
            if not shop.compile(project.plugin_folder, now, cmake_options(target, self._gpus)):
                step.what = ""
        with self._timed(into, "", "serializing") as step:
            serialized = shop.serialize(project.repository_folder, now)
            step.what = f"serialized {_listed(serialized)}" if serialized else ""
        files = now.below("model_repository")
        models = self._folder.fill(project.repository_folder, files, shop.pipelines | shop.libraries)
        if not models:
            raise VerificationError(
                "there is no model", where="model_repository", remedy="add model_repository/NAME/config.pbtxt"
            )
        configs = _configurations(self._folder.path, models)
        if not self._gpus:
            into.not_run = placement.of_gpus(configs)
            models = {name: digest for name, digest in models.items() if name not in into.not_run}
        ensembles = {name for name, config in configs.items() if config.platform == "ensemble"}
        live = self._serve(project, foundation, models, ensembles, files, into)
        # An ensemble is as its steps are, and they as theirs.
        state = {name: repr(models) if name in ensembles else models[name] for name in models}
        self._ask(live, self._told(project, now), state, changed, into)

    def tidy(self) -> None:
        """Takes away what a round replaced; the verdict does not wait for it."""
        while self._former:
            self._former.pop().close()
        if self._workshop:
            self._workshop[0].keep()

    def _move(self, foundation: Foundation, into: Round) -> None:
        """Another base or another toolchain: nothing of the former ones is of use."""
        self._foundation = None
        if self._workshop:
            _, stack = self._workshop
            self._workshop = None
            stack.close()
        with self._timed(into, "started the toolchain", "starting the toolchain"):
            stack = self._stack()
            kept = self._folder.path.parent / f"{foundation.toolchain.rpartition(':')[2]}.tar"
            self._workshop = (stack.enter_context(workshop.opened(self._engine, foundation.toolchain, kept)), stack)
        self._foundation = foundation

    def _serve(
        self,
        project: Project,
        foundation: Foundation,
        models: Mapping[str, str],
        ensembles: Collection[str],
        files: Mapping[str, str],
        into: Round,
    ) -> LiveServer:
        """A server that has loaded `models`: the present one where it can, or else one that takes its place."""
        assert self._workshop is not None
        compiled = self._workshop[0].libraries
        beside = {name for name in files if "/" not in name and name.endswith(".so")}
        listed = project.listed or tuple(f"{MODELS}/{name}" for name in sorted({*compiled, *beside}))
        arguments = server.command(recipe.command(project, listed))
        libraries = [files[name] for name in sorted(beside)]
        wanted = repr((foundation.base, arguments, self._workshop[0].compiled, libraries, self._gpus))
        present = self.server
        if present and present.started_with == wanted and present.is_usable:
            with self._timed(into, "", "loading") as step:
                loaded = present.bring(models, ensembles)
                step.what = f"loaded {_listed(loaded)}" if loaded else ""
            return present
        stack = self._stack()
        try:
            with self._timed(into, "started a server", "starting a server"):
                begun = server.serving(
                    self._engine,
                    foundation.base,
                    self._folder.path,
                    arguments,
                    wanted,
                    gpus=self._gpus,
                    timeout=self._timeout,
                )
                live = stack.enter_context(begun)
            with self._timed(into, f"loaded {_listed(sorted(models))}", "loading"):
                live.bring(models, ensembles)
        except BaseException:
            stack.close()
            raise
        if self._serving:
            self._former.append(self._serving)
        self.server, self._serving = live, stack
        self._right = {}
        return live

    def _ask(
        self,
        live: LiveServer,
        told: Mapping[str, Oracle],
        state: Mapping[str, str],
        changed: Sequence[str],
        into: Round,
    ) -> None:
        """Asks the models that are not in the state in which they were right.

        Raises:
            VerificationError: there is none.
            ModelNotLoaded: the server does not have one that it was to be asked for.
        """
        if not state:
            raise VerificationError(
                "no model was asked, so nothing is known to be right",
                where="model_repository",
                remedy="let it have a GPU: --gpus all",
                detail=[f"{name}: {why}" for name, why in sorted(into.not_run.items())],
            )
        now = {name: f"{each} {self._oracles[0] if name in told else ''}" for name, each in state.items()}
        wanted = {name for name, each in now.items() if self._right.get(name) != each}
        # A change that leads to nothing new, as one that was taken back: what it touched is asked once more.
        wanted = wanted or {name for name in now if any(f"/{name}/" in each for each in changed)} or set(now)
        for name in wanted:
            self._right.pop(name, None)
        answered: list[Answered] = []
        with (
            self._timed(into, "asked", "asking"),
            live.asked(),
            triton.clients(live.endpoint, answers.AT_ONCE) as clients,
        ):
            for spec in triton.models(live.endpoint):
                if spec.name in wanted:
                    answered.append(answers.ask(spec, told.get(spec.name, oracles.SIGNATURE), clients, self._seed))
                    into.models = tuple(answered)
        if missing := sorted(wanted - {each.name for each in answered}):
            raise ModelNotLoaded(
                f"the server does not list as ready: {_listed(missing)}",
                where=f"model {missing[0]}",
                remedy="see whether model_repository has a version of it that the server may load",
            )
        self._right |= {name: now[name] for name in wanted}

    def _told(self, project: Project, now: Snapshot) -> dict[str, Oracle]:
        """The oracles of builder.toml; their files are read again where one of them has changed."""
        files = [(name, now.files.get(name)) for name in oracle_files(project)]
        key = sha256(repr((files, sorted(project.models.items()))).encode()).hexdigest()
        if self._oracles[0] != key:
            oracles.forget(project.root)
            self._oracles = (
                key,
                {
                    name: oracles.load(project.root, each, str(project.place("models", name, "oracle")))
                    for name, each in project.models.items()
                },
            )
        return self._oracles[1]

    def _stack(self) -> ExitStack:
        """One that closes with the session, if it has not closed before."""
        stack = ExitStack()
        self._all.callback(stack.close)
        return stack

    @contextlib.contextmanager
    def _timed(self, into: Round, what: str, doing: str) -> Iterator[_Step]:
        step = _Step(what)
        began = time.monotonic()
        with self._console.status(doing) if self._console.is_terminal else contextlib.nullcontext():
            yield step
        if step.what:
            into.done.append(Done(step.what, time.monotonic() - began))


@dataclass
class _Step:
    what: str
    """Empty for one that was not needed."""


def cmake_options(target: Target, gpus: str, find: Callable[[], gpu.Driver | None] = gpu.find) -> list[str]:
    """What `dev` compiles for: this machine's GPUs, or one architecture where it is given none."""
    if target.cuda == "OFF":
        return ["-DDALI_PLUGIN_CUDA=OFF"]
    return [
        f"-DDALI_PLUGIN_CUDA={target.cuda}",
        f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(architectures(target, gpus, find))}",
    ]


def architectures(target: Target, gpus: str, find: Callable[[], gpu.Driver | None] = gpu.find) -> list[str]:
    """As CMake writes them."""
    driver = find() if gpus else None
    if driver and driver.gpus:
        return sorted({f"{each.capability.replace('.', '')}-real" for each in driver.gpus})
    return [*target.cuda_architectures, _WITHOUT_GPU][:1]


def _configurations(repository: Path, models: Collection[str]) -> dict[str, Any]:
    """The ModelConfig of each model that has one; `check` has read them before."""
    paths = {name: repository / name / pbtxt.FILE_NAME for name in models}
    return {name: pbtxt.read(path).message for name, path in paths.items() if path.is_file()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
