"""Builds, through `docker buildx bake`: a definition in, metadata out, and a failure that says what went wrong."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from builder.artifacts import write_atomically
from builder.docker import brought, compiler, serializer
from builder.docker.builders import Builder, unreachable, unsuitable
from builder.docker.engine import engine_builder, engine_failure, gone
from builder.docker.progress import BuildProgress, Step, View
from builder.docker.secrets import NetworkSecrets, from_machine
from builder.errors import (
    BuilderError,
    BuildError,
    CacheNotWritten,
    CompileError,
    DownloadError,
    LockOutdated,
    NoBase,
    SerializeError,
)
from builder.process import run
from builder.project import MODELS

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
_NOT_SUPPORTED = re.compile(r"not supported (?:for|by) the [\w-]+ driver")
_NO_CONNECTION = "[internal] waiting for connection"
_CACHE_STEP = re.compile(r"(?:^|\] )exporting cache to ")
_DETAIL_LINES = 40


def bake(
    targets: Mapping[str, Mapping[str, Any]],
    *,
    context: Path,
    definition: Path,
    view: View,
    no_cache: bool = False,
    builder: Builder | None = None,
) -> dict[str, dict[str, Any]]:
    """Builds all `targets` (bake's own JSON form) in one call, their common stages once.

    The definition stays in the file `definition`, where `docker buildx bake -f` can take it again.

    Args:
        builder: the engine's own by default. Of another one, images with a name come to the engine, too.

    Returns:
        buildx's metadata, a table for each target.

    Raises:
        BuildError and its family: a stage failed.
        NoBase, DiskFull: the machine lacks what the build needs.
        BuilderUnreachable, BuilderUnsuitable: it is the builder that fails.
    """
    builder = builder or Builder(engine_builder())
    if builder.engine:
        return brought.bake(
            builder.engine,
            targets,
            definition.parent,
            lambda asked: _bake(asked, context, definition, view, no_cache, builder),
        )
    return _bake(targets, context, definition, view, no_cache, builder)


def _bake(
    targets: Mapping[str, Mapping[str, Any]],
    context: Path,
    definition: Path,
    view: View,
    no_cache: bool,
    builder: Builder,
) -> dict[str, dict[str, Any]]:
    network = from_machine()
    # The program's own files are outside of the project: from 0.20 on buildx takes no such definition unasked.
    # https://docs.docker.com/build/release-notes/#0200
    network.environment["BUILDX_BAKE_ENTITLEMENTS_FS"] = "0"
    told = {name: builder.told(name, target) for name, target in targets.items()}
    if token := _fresh(definition.parent / "fresh", anew=no_cache):
        told = {name: {**each, "args": {**each.get("args", {}), "FRESH": token}} for name, each in told.items()}
    write_atomically(definition, json.dumps(document(told, network), indent=2) + "\n")
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
        # Also the engine's own, or it would be the one that `docker buildx use` chose.
        f"--builder={builder.name}",
    ]
    if no_cache:
        command.append("--no-cache")
    with BuildProgress(view) as progress:
        finished = run(command, env=network.environment, cwd=context, on_stderr=progress.feed)
        if finished.returncode:
            raise failure(progress, builder)
    return dict(json.loads(metadata.read_text(encoding="utf-8")))


def _fresh(path: Path, *, anew: bool) -> str:
    """What makes the stage `plugins` begin from nothing: told to this build and to all later ones of the project.

    Otherwise these would take what an earlier build left under another name.
    """
    if anew:
        write_atomically(path, secrets.token_hex(8))
    return path.read_text(encoding="utf-8") if path.is_file() else ""


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


def failure(progress: BuildProgress, builder: Builder | None = None) -> BuilderError:
    """The error that a broken build stands for, with the lines that matter of the step that broke it."""
    step = progress.failed
    message = step.error if step else "\n".join(progress.messages)
    if "no space left on device" in message or (step and any("No space left on device" in line for line in step.log)):
        return engine_failure("no space left on device", step.title if step else "docker buildx bake")
    if builder and (_NOT_SUPPORTED.search(message) or any(map(_NOT_SUPPORTED.search, progress.messages))):
        return unsuitable(builder.name, message)
    if (step and step.name == _NO_CONNECTION) or _ENGINE_GONE.search("\n".join((message, *progress.messages))):
        if builder and not builder.is_engine:
            return unreachable(builder.name, message)
        return gone("docker buildx bake", message)
    if step is None:
        return BuildError(
            "buildx could not build",
            where="docker buildx bake",
            remedy="see its message",
            detail=message.splitlines()[-10:],
        )
    if _CACHE_STEP.search(step.name):
        return CacheNotWritten(
            "the build's cache cannot be written",
            where=step.title,
            remedy="see what the registry says (`docker login` may be needed); with ignore-error=true in --cache-to a "
            "build goes through without",
            detail=[message],
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
    if ours := serializer.complaints(lines, MODELS):
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
    if step.stage == compiler.STAGE:
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
    """The compiler's errors, each with the lines that show its place; without one, the whole log. Long ones are cut."""
    kept = [line for message in compiler.messages(lines) for line in message]
    return (kept or lines)[:_DETAIL_LINES]
