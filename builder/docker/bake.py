"""Builds, through `docker buildx bake`: a definition in, metadata out, and a failure that says what went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from builder.artifacts import write_atomically
from builder.docker.engine import engine_builder, engine_failure, gone
from builder.docker.progress import BuildProgress, Step
from builder.docker.secrets import NetworkSecrets, from_machine
from builder.errors import BuilderError, BuildError, CompileError, DownloadError, LockOutdated, NoBase, SerializeError
from builder.process import run

_ERROR_LINE = re.compile(r"(?:\berror\b(?: #\d+)?:|^CMake Error|undefined reference|: fatal error)", re.IGNORECASE)
_NOT_AN_ERROR = re.compile(r": note:|: warning:|In file included")
_BASE_STEP = re.compile(r"load metadata for|\] FROM ")
_DOWNLOAD_FAILED = re.compile(
    r"Could not fetch URL|No matching distribution|HTTPS?ConnectionPool|Read timed out|ReadTimeoutError|Failed to fetch"
    r"|Temporary failure resolving|CERTIFICATE_VERIFY_FAILED"
)
# gRPC's and Docker's own words for a server that is not there, or not any more.
_ENGINE_GONE = re.compile(
    r"\bUnavailable\b.*(?:error reading from server|transport|connection)|cannot connect to the docker daemon",
    re.IGNORECASE,
)
_DETAIL_LINES = 40


def bake(
    targets: Mapping[str, Mapping[str, Any]],
    *,
    context: Path,
    definition: Path,
    console: Console,
    no_cache: bool = False,
) -> dict[str, dict[str, Any]]:
    """Builds all `targets` (bake's own JSON form) in one call, their common stages once.

    The definition stays in the file `definition`, where `docker buildx bake -f` can take it again.

    Returns:
        buildx's metadata, a table for each target.

    Raises:
        BuildError and its family: a stage failed.
        NoBase, DiskFull: the machine lacks what the build needs.
    """
    network = from_machine()
    write_atomically(definition, json.dumps(document(targets, network), indent=2) + "\n")
    metadata = definition.with_name(definition.stem + ".metadata.json")
    metadata.unlink(missing_ok=True)
    command = [
        "docker",
        "buildx",
        "bake",
        "--file",
        str(definition),
        "--metadata-file",
        str(metadata),
        "--progress=rawjson",
        # The engine's own: what another one builds is not where `smoke` and `push` look for it.
        f"--builder={engine_builder()}",
    ]
    if no_cache:
        command.append("--no-cache")
    with BuildProgress(console) as progress:
        finished = run(command, env=network.environment, cwd=context, on_stderr=progress.feed)
    if finished.returncode:
        raise failure(progress)
    return dict(json.loads(metadata.read_text(encoding="utf-8")))


def document(targets: Mapping[str, Mapping[str, Any]], network: NetworkSecrets) -> dict[str, Any]:
    """What `docker buildx bake` reads."""
    complete = {name: _complete(target, network.secrets, network.proxies) for name, target in targets.items()}
    return {
        # buildx takes a variable's value from the environment, so that no proxy's password is in the file.
        **({"variable": {name: {"default": ""} for name in network.proxies}} if network.proxies else {}),
        "group": {"default": {"targets": list(complete)}},
        "target": complete,
    }


def _complete(target: Mapping[str, Any], secrets: list[str], proxies: Iterable[str]) -> dict[str, Any]:
    return {
        **target,
        **{key: _literal(target[key]) for key in ("dockerfile-inline", "labels") if key in target},
        "context": ".",
        "args": {**target.get("args", {}), **{name: f"${{{name}}}" for name in proxies}},
        "secret": secrets,
        # No attestations in the image's index: its digest depends on its content alone.
        "attest": ["type=provenance,disabled=true", "type=sbom,disabled=true"],
    }


def _literal(value: Any) -> Any:
    """As bake reads it back: its strings are templates."""
    if isinstance(value, Mapping):
        return {name: _literal(inner) for name, inner in value.items()}
    return value.replace("${", "$${").replace("%{", "%%{") if isinstance(value, str) else value


def failure(progress: BuildProgress) -> BuilderError:
    """The error that a broken build stands for, with the lines that matter of the step that broke it."""
    step = progress.failed
    message = step.error if step else "\n".join(progress.messages)
    if "no space left on device" in message or (step and any("No space left on device" in line for line in step.log)):
        return engine_failure("no space left on device", step.title if step else "docker buildx bake")
    if _ENGINE_GONE.search("\n".join((message, *progress.messages))):
        return gone("docker buildx bake", message)
    if step is None:
        return BuildError(
            "buildx could not build",
            where="docker buildx bake",
            remedy="see its message",
            detail=message.splitlines()[-10:],
        )
    if _BASE_STEP.search(step.name):
        return NoBase(
            "a base image cannot be had",
            where=step.title,
            remedy="pull it by hand to see why (`docker login` may be needed), or name another one in builder.toml",
            detail=[message],
        )
    return _of_stage(step, step.said)


def _of_stage(step: Step, lines: list[str]) -> BuilderError:
    if ours := [line.split("serialize: error: /", 1)[1] for line in lines if "serialize: error: /" in line]:
        ours = [re.sub(r"^models/", "model_repository/", line) for line in ours]
        return SerializeError(
            "a pipeline cannot be serialized",
            where=ours[0].partition(": ")[0],
            remedy="mend the line of dali.py that is named",
            detail=ours,
        )
    if ours := [line.split("facts: error: ", 1)[1] for line in lines if "facts: error: " in line]:
        return BuildError(
            "a compiled plugin cannot be loaded",
            where=f"stage {step.stage}",
            remedy="mend what the loader names",
            detail=ours,
        )
    if others := [line.split("lock: error: ", 1)[1] for line in lines if "lock: error: " in line]:
        return LockOutdated(
            "Debian's packages are not those of builder.lock, and the mirror may no longer have them",
            where=step.title,
            remedy="accept the present ones with `python -m builder lock`, or build against a mirror that keeps old "
            "ones, such as Debian's snapshot archive",
            detail=others,
        )
    if downloads := [line for line in lines if _DOWNLOAD_FAILED.search(line)]:
        return DownloadError(
            "a download failed",
            where=step.title,
            remedy="check the network, the proxy variables and the certificates (SSL_CERT_FILE); then build again",
            detail=downloads[-8:],
        )
    if step.stage == "plugins":
        return CompileError(
            "the plugin does not compile",
            where="plugin/",
            remedy="mend the lines that the compiler or CMake names",
            detail=compiler_messages(lines),
        )
    return BuildError(
        f"stage {step.stage} failed", where=step.title, remedy="see its last lines", detail=lines[-20:] or [step.error]
    )


def compiler_messages(lines: list[str]) -> list[str]:
    """The compiler's errors, each with the lines that show its place, out of a whole build log."""
    kept: list[str] = []
    following = 0
    in_cmake = False
    for line in lines:
        if line.startswith("CMake Error"):
            in_cmake = True
        elif in_cmake and line.startswith(("--", "CMake ", "-- ")):
            in_cmake = False
        if _ERROR_LINE.search(line) and not line.startswith("ninja:"):
            following = 4
        elif line.startswith(("[", "FAILED:", "ninja:")) or _NOT_AN_ERROR.search(line):
            following = 0
        if following or in_cmake:
            kept.append(line.replace("/src/plugin/", "plugin/"))
            following -= following > 0
    return (kept or lines)[:_DETAIL_LINES]
