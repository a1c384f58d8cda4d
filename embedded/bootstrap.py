#!/usr/bin/env python3
"""Make a minimal Debian 12 image from this machine's own apt mirror, for places that cannot pull a base image.

    bootstrap.py REFERENCE    prints the ID of the image, which the running engine then knows as REFERENCE

The same state of the mirror gives the same image ID.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

# The setup's folder is no package: its scripts run on a bare Python before anything is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "setup"))

from apt_sources import KEYRING, Source, debian_codename, machine_sources
from engine_common import EXIT_SETUP, Interrupted, SetupError, last_lines, raise_on_signals, tool

# What the Dockerfile installs is of this release, whichever one the machine runs.
CODENAME = "bookworm"
EPOCH = "1700000000"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A machine sets these where its mirror is a snapshot or its clock is off: installs in the image meet the same mirror.
CARRIED_OPTIONS = ("Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::Max-FutureTime")
APT_HELPER = "/usr/lib/apt/apt-helper"


def bootstrap(reference: str) -> str:
    """Make the image, give it to the running engine as REFERENCE, and return its ID."""
    own = debian_codename()
    if os.geteuid() != 0:
        raise SetupError(
            f"making a Debian root file system needs root, and this is user id {os.geteuid()}.\n  Run this as root."
        )
    architecture = docker("version", "--format", "{{.Server.Arch}}")
    sources = usable_sources(of_release(machine_sources(), own, CODENAME), CODENAME)
    with tempfile.TemporaryDirectory(prefix="bootstrap-") as directory:
        layer = Path(directory) / "layer.tar"
        make_root(CODENAME, sources, layer)
        load(layer, reference if ":" in reference.rsplit("/", 1)[-1] else f"{reference}:latest", architecture)
    return docker("image", "inspect", "--format", "{{.Id}}", reference)


def of_release(sources: Iterable[Source], own: str, codename: str) -> list[Source]:
    """The machine's mirrors with CODENAME in place of its own release: they carry the others of Debian as well."""
    changed = []
    for source in sources:
        release, dash, rest = source.suite.partition("-")
        suite = f"{codename}{dash}{rest}" if release == own else source.suite
        changed.append(dataclasses.replace(source, suite=suite))
    return changed


def usable_sources(sources: Iterable[Source], codename: str) -> list[Source]:
    """The first serving source of each suite of this release; updates and security only where the machine has them."""
    chosen: dict[str, Source] = {}
    tried: list[str] = []
    for source in sources:
        if source.suite not in (codename, f"{codename}-updates", f"{codename}-security") or source.suite in chosen:
            continue
        # A container reaches no folder of this machine, and no password may get into an image.
        if not source.uri.startswith(("http://", "https://")) or "@" in source.uri:
            continue
        tried.append(f"{source.uri} {source.suite}")
        if serves(source):
            chosen[source.suite] = source
        else:
            say(f"{source.uri} does not serve {source.suite}; going on without it")
    if codename not in chosen:
        raise SetupError(
            f"no apt mirror of this machine serves Debian {codename} "
            f"(tried: {', '.join(tried) or 'none'}).\n"
            "  Check the network and the sources in /etc/apt, then try again."
        )
    return [chosen[suite] for suite in sorted(chosen, key=len)]


def serves(source: Source) -> bool:
    # apt's own helper: it knows this machine's proxies and certificates.
    with tempfile.TemporaryDirectory(prefix="bootstrap-") as directory:
        target = f"{directory}/InRelease"
        return (
            tool(
                [
                    APT_HELPER,
                    "-o",
                    "APT::Sandbox::User=root",
                    "-o",
                    "Acquire::http::Timeout=20",
                    "download-file",
                    f"{source.uri.rstrip('/')}/dists/{source.suite}/InRelease",
                    target,
                ],
                timeout=120,
            )[0]
            == 0
        )


def make_root(codename: str, sources: Iterable[Source], layer: Path) -> None:
    argv = [
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        "--include=apt,ca-certificates",
        "--format=tar",
        *keyring(),
        *(f"--aptopt={option}" for option in carried_options()),
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*/LC_MESSAGES/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        # What tells this machine, and what differs from one making to the next.
        '--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1"/var/cache/debconf/*-old',
        '--customize-hook=rm -rf "$1"/var/log/apt "$1"/var/log/dpkg.log "$1"/var/cache/ldconfig/aux-cache',
        '--customize-hook=if [ -e "$1/etc/machine-id" ]; then : >"$1/etc/machine-id"; fi',
        codename,
        str(layer),
        *(source.line() for source in sources),
    ]
    code, output = tool(argv, env={**os.environ, **proxies(), "SOURCE_DATE_EPOCH": epoch(), "TZ": "UTC"})
    if code == 127:
        raise SetupError("the program mmdebstrap is missing.\n  apt-get install mmdebstrap, then try again.")
    if code != 0:
        raise SetupError(
            f"mmdebstrap could not make Debian {codename}:\n{last_lines(output)}\n"
            f"  Check the network, the apt sources, and the room in {layer.parent}, then try again."
        )


def keyring(path: str = KEYRING) -> list[str]:
    """Debian's keys of every release, beside those that apt trusts anyway; the image keeps its own."""
    return [f"--keyring={path}"] if Path(path).exists() else []


def epoch() -> str:
    return os.environ.get("SOURCE_DATE_EPOCH") or EPOCH


def apt_config(names: Iterable[str], form: str) -> list[str]:
    code, output = tool(["apt-config", "dump", "--no-empty", "--format", form, *names])
    return output.splitlines() if code == 0 else []


def carried_options() -> list[str]:
    return apt_config(CARRIED_OPTIONS, '%f "%v";%n')


def proxies() -> dict[str, str]:
    """This machine's apt proxies, for the making alone: they stay out of the image."""
    found = {}
    for line in apt_config(("Acquire::http::Proxy", "Acquire::https::Proxy"), "%f %v%n"):
        name, _, value = line.partition(" ")
        if name.count("::") == 2 and value and value != "DIRECT":
            found[f"{name.split('::')[1].lower()}_proxy"] = value
    return found


def load(layer: Path, reference: str, architecture: str) -> None:
    """Hand the engine a whole image: `docker import` would put the present time into it, and so a new ID each time."""
    process = subprocess.Popen(
        ["docker", "load", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        write_image(process.stdin, layer, reference, architecture)
        process.stdin.close()
    except BrokenPipeError:
        pass  # the engine's own message says more
    output = process.stdout.read().decode(errors="replace")
    if process.wait() != 0:
        raise SetupError(
            f"the Docker engine did not take the image {reference}:\n{last_lines(output)}\n"
            "  Check the reference and the engine's disk, then try again."
        )


def write_image(output: IO[bytes], layer: Path, reference: str, architecture: str) -> None:
    with layer.open("rb") as content:
        digest = hashlib.sha256()
        for block in iter(lambda: content.read(1 << 20), b""):
            digest.update(block)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(epoch())))
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["bash"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        "history": [{"created": created, "created_by": "mmdebstrap"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(fileobj=output, mode="w|") as archive:
        for name, value in (("manifest.json", manifest), ("config.json", config)):
            text = json.dumps(value, sort_keys=True).encode()
            archive.addfile(member(name, len(text)), io.BytesIO(text))
        with layer.open("rb") as content:
            archive.addfile(member("layer.tar", layer.stat().st_size), content)


def member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def docker(*arguments: str) -> str:
    code, output = tool(["docker", *arguments], timeout=60)
    if code != 0:
        raise SetupError(
            f"`docker {arguments[0]}` failed:\n{last_lines(output)}\n"
            "  Start a Docker engine, or run this by: python3 setup/engine.py run -- COMMAND..."
        )
    return output.strip()


def say(message: str) -> None:
    print(f"bootstrap: {message}", file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    if len(argv) != 1 or argv[0].startswith("-"):
        say(f"one argument is needed, the reference of the new image, as in: {Path(__file__).name} debian:bookworm")
        return 2
    raise_on_signals()  # or mmdebstrap would go on without this process, and temporary files would stay
    try:
        print(bootstrap(argv[0]))
    except SetupError as error:
        say(str(error))
        return EXIT_SETUP
    except OSError as error:
        say(f"{error}\n  Check the disk, then try again.")
        return EXIT_SETUP
    except Interrupted as interrupted:
        say("interrupted; no image was made")
        return 128 + interrupted.signum
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
