"""A container of the toolchain that stays: compiles what changed, and serializes, with no build around it."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO

from docker.models.containers import Container

from builder import package
from builder.checks.repository import SERIALIZED, SOURCE
from builder.dev.folder import Hashed, write_whole
from builder.dev.snapshot import Moved, Snapshot
from builder.docker import compiler, serializer
from builder.docker.engine import Engine, translated
from builder.errors import CompileError, SerializeError
from builder.project import MODELS
from builder.sources import of_file

# As in the Dockerfile, so that messages name the same files.
_SOURCES, _STAGES, _KEPT, _PLUGINS, _CHOSEN = "/src/plugin", "/run/stages", "/kept", "/plugins", "/chosen"
_DETAIL_LINES = 40


@contextlib.contextmanager
def opened(engine: Engine, image: str, kept: Path) -> Iterator[Workshop]:
    """A workshop in a container of `image`, for the length of a `with`. It reaches no network.

    Args:
        kept: where what was compiled outlives it, so that the next one compiles what has changed alone.
    """
    with engine.running(
        image,
        entrypoint=["sleep", "infinity"],
        command=[],
        init=True,
        network_mode="none",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    ) as container:
        workshop = Workshop(container, kept)
        workshop.furnish()
        yield workshop


@dataclass
class Workshop:
    """What is compiled and serialized, and from what: nothing is made twice of the same."""

    container: Container
    kept: Path
    libraries: dict[str, bytes] = field(default_factory=dict)
    """By file name."""
    pipelines: dict[str, bytes] = field(default_factory=dict)
    """Each `MODEL/VERSION/model.dali`."""
    _compiled: str = ""
    _unkept: bool = False
    _placed: dict[str, str] = field(default_factory=dict)
    """Digests of the models that the container has, by name."""
    _files: list[str] = field(default_factory=list)
    """Of these models."""
    _serialized: dict[str, str] = field(default_factory=dict)
    """What each model was serialized from."""

    def furnish(self) -> None:
        """Brings what the build stages run."""
        self._run(f"mkdir -p {_SOURCES} {_STAGES} {_KEPT} {_PLUGINS} {MODELS}")
        folder = package.ROOT / "builder" / "stages"
        self._put(_STAGES, folder, {path.relative_to(folder).as_posix(): "" for path in folder.rglob("*.*")})
        if self.kept.is_file():
            self._put("/tmp", self.kept.parent, {self.kept.name: ""})
            # Of one that was cut off nothing is taken.
            self._run(f"tar x -C {_KEPT} -f /tmp/{self.kept.name} || rm -rf {_KEPT}/*")

    def keep(self) -> None:
        """Leaves for the next workshop what was compiled since the last time."""
        if self._unkept:
            # With times in nanoseconds, by which Ninja tells what is out of date.
            status, archived = self._exec(["tar", "c", "--format=posix", "-C", _KEPT, "."], stderr=False)
            if status == 0:
                for former in self.kept.parent.glob(f"*{self.kept.suffix}"):
                    former.unlink()
                write_whole(self.kept, archived)
            self._unkept = False

    def compile(self, folder: Path, now: Snapshot, options: Sequence[str]) -> bool:
        """Makes `libraries` of plugin/, and tells whether there was anything to do.

        Args:
            options: for CMake.

        Raises:
            CompileError: the compiler or CMake refuses.
            Moved: a source is another by now, or gone.
        """
        wanted = repr((now.digest_of("plugin"), list(options)))
        if wanted == self._compiled:
            return False
        self._compiled = ""
        self._run(f"rm -rf {_SOURCES} {_PLUGINS} && mkdir -p {_SOURCES} {_PLUGINS}")
        if names := now.below("plugin"):
            self._put(_SOURCES, folder, names)
            script = ["python3", f"{_STAGES}/compile.py", _SOURCES, _KEPT, _PLUGINS]
            status, said = self._exec([*script, f"-DCMAKE_MODULE_PATH={_STAGES}/cmake", *options])
            if status:
                lines = said.decode(errors="replace").splitlines()
                complaints = [line for message in compiler.messages(lines) for line in message]
                raise CompileError(
                    "the plugin does not compile",
                    where="plugin/",
                    remedy="mend the lines that the compiler or CMake names",
                    detail=(complaints or lines[-20:])[:_DETAIL_LINES],
                )
            self._unkept = True
        made = self._get(_PLUGINS, ["."])
        before, self.libraries = self.libraries, {Path(name).name: each for name, each in made.items()}
        if before != self.libraries:
            copied = f"find {_PLUGINS} -type f -exec cp -t {MODELS} {{}} +"
            self._run(f'cd {MODELS} && rm -f -- "$@" && {copied}', *before)
        self._compiled = wanted
        return True

    @property
    def compiled(self) -> str:
        """The digest of `libraries`."""
        return sha256(repr(sorted(self.libraries.items())).encode()).hexdigest() if self.libraries else ""

    def serialize(self, repository: Path, now: Snapshot) -> tuple[str, ...]:
        """Makes `pipelines` of the models that changed, or whose plugins did; tells which.

        Raises:
            SerializeError: a pipeline is wrong. What could be made of the others is kept.
            Moved: a file is another by now, or gone.
        """
        self._place(repository, now)
        files = now.below("model_repository")
        sources = [name for name in files if _is_source(name)]
        keys = {model: f"{digest} {self.compiled}" for model, digest in _without_configurations(files).items()}
        with_source = {name.partition("/")[0] for name in sources}
        self._serialized = {model: key for model, key in self._serialized.items() if model in with_source}
        self.pipelines = {name: each for name, each in self.pipelines.items() if _source_of(name) in sources}
        stale = sorted(model for model in with_source if self._serialized.get(model) != keys[model])
        if not stale:
            return ()
        chosen = f'rm -rf {_CHOSEN} && mkdir {_CHOSEN} && for m; do ln -s "{MODELS}/$m" {_CHOSEN}/; done'
        serialize = f'PYTHONPATH="$DALI_HOME" exec python3 {_STAGES}/serialize.py {_CHOSEN}'
        status, said = self._exec(["sh", "-c", f"{chosen}; {serialize}", "sh", *stale])
        lines = said.decode(errors="replace").splitlines()
        complaints = serializer.complaints(lines, _CHOSEN)
        wrong = {line.removeprefix("model_repository/").partition("/")[0] for line in complaints}
        right = [model for model in stale if model not in wrong and (complaints or not status)]
        if right:
            made = [_serialized_of(name) for name in sources if name.partition("/")[0] in right]
            self.pipelines |= self._get(MODELS, made)
            self._serialized |= {model: keys[model] for model in right}
        if status:
            detail = [line.replace(f"{_CHOSEN}/", "model_repository/") for line in complaints or lines]
            raise SerializeError(
                "a pipeline cannot be serialized",
                where=detail[0].partition(": ")[0] if complaints else "model_repository/",
                remedy="mend the line of dali.py that is named",
                detail=detail,
            )
        return tuple(stale)

    def _place(self, repository: Path, now: Snapshot) -> None:
        """Gives the container the models as they are now."""
        files = now.below("model_repository")
        # What lies beside the models, as a library that was compiled elsewhere, comes along.
        wanted = now.models() | {name: each for name, each in files.items() if "/" not in name}
        changed = {name for name in {*wanted, *self._placed} if wanted.get(name) != self._placed.get(name)}
        if not changed:
            return
        self._placed |= dict.fromkeys(changed, "")  # nothing that is known, until all of it is there
        if gone := [name for name in self._files if name.partition("/")[0] in changed and name not in files]:
            self._run(f'cd {MODELS} && rm -rf -- "$@"', *gone)
        self._files = list(files)
        self._put(MODELS, repository, {name: each for name, each in files.items() if name.partition("/")[0] in changed})
        self._placed = wanted

    def _exec(self, command: Sequence[str], *, stderr: bool = True) -> tuple[int, bytes]:
        """Exit status, and what it said on stdout and, unless told otherwise, on stderr."""
        with translated("the container that compiles"):
            assert self.container.client is not None
            api = self.container.client.api
            started = api.exec_create(self.container.id, list(command), stderr=stderr)["Id"]
            said = bytes(api.exec_start(started))
            return int(api.exec_inspect(started)["ExitCode"]), said

    def _run(self, script: str, *arguments: str) -> None:
        status, said = self._exec(["sh", "-c", script, "sh", *arguments])
        assert status == 0, f"{script}: {said!r}"

    def _put(self, to: str, folder: Path, files: Mapping[str, str]) -> None:
        """Copies files of a folder into the container, all or none.

        Args:
            files: by name, each with the digest that it must have; empty for those that may have any, and for folders.

        Raises:
            Moved: one is another by now, or gone.
        """
        moved = []
        with tempfile.TemporaryFile() as spool:
            with tarfile.open(fileobj=spool, mode="w") as archive:
                for name, digest in files.items():
                    try:
                        copied = _add(archive, folder / name, name)
                    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                        moved.append(name)
                        continue
                    if digest not in ("", copied):
                        moved.append(name)
            if moved:
                raise Moved(*moved)
            spool.seek(0)
            self._send(to, spool)

    def _send(self, to: str, spool: IO[bytes]) -> None:
        with translated("the container that compiles"):
            self.container.put_archive(to, spool)

    def _get(self, folder: str, names: Sequence[str]) -> dict[str, bytes]:
        """Files by name, and whole folders, of a folder in the container."""
        if not names:
            return {}
        status, archived = self._exec(["tar", "c", "-C", folder, "--", *names], stderr=False)
        assert status == 0, f"{folder}: {names}"
        with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
            return {
                each.name.removeprefix("./"): content.read()
                for each in archive
                if each.isfile() and (content := archive.extractfile(each))
            }


def _add(archive: tarfile.TarFile, path: Path, name: str) -> str:
    """Adds one file, link or folder; the digest of what was added, or of what a link points to."""
    if path.is_symlink() or path.is_dir():
        archive.add(path, name, recursive=False, filter=_plain)
        return of_file(path) if path.is_file() else ""
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        entry = _plain(tarfile.TarInfo(name))
        entry.size, entry.mode, entry.mtime = status.st_size, status.st_mode & 0o7777, status.st_mtime
        # An entry has its size first: of a file that became longer the start is taken, and one that became shorter is
        # filled up.
        content = Hashed(lambda size: stream.read(size).ljust(size, b"\0"))
        archive.addfile(entry, content)
        return content.digest


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _is_source(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[2] == SOURCE and parts[1].isdecimal() and not name.startswith(".")


def _serialized_of(source: str) -> str:
    return source.removesuffix(SOURCE) + SERIALIZED


def _source_of(serialized: str) -> str:
    return serialized.removesuffix(SERIALIZED) + SOURCE


def _without_configurations(files: Mapping[str, str]) -> dict[str, str]:
    """The digest of all that a model's pipelines could read."""
    found: dict[str, list[str]] = {}
    for name, each in sorted(files.items()):
        model, slash, rest = name.partition("/")
        if slash and rest != "config.pbtxt":
            found.setdefault(model, []).append(f"{rest} {each}")
    return {model: sha256("\n".join(lines).encode()).hexdigest() for model, lines in found.items()}
