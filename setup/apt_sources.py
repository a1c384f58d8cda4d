"""The machine's own apt sources, as apt itself reads them: one-line and deb822 files, options and comments included."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from engine_common import SetupError, last_lines, tool

FORMAT = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclasses.dataclass(frozen=True)
class Source:
    """One repository and suite, with its components."""

    uri: str
    suite: str
    components: tuple[str, ...]

    def line(self, options: str = "") -> str:
        return " ".join(filter(None, ["deb", options, self.uri, self.suite, *self.components]))


def parse(targets: str) -> list[Source]:
    """Sources from apt's list of index files, in apt's order."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in targets.splitlines():
        fields = line.strip().split("|")
        if len(fields) != 3 or not all(fields):
            continue
        components = found.setdefault((fields[0], fields[1]), [])
        if fields[2] not in components:
            components.append(fields[2])
    return [Source(uri, suite, tuple(components)) for (uri, suite), components in found.items()]


def machine_sources(options: Iterable[str] = ()) -> list[Source]:
    """Every binary package source that this machine's apt knows."""
    # Without --no-release-info apt leaves out what it has not fetched yet: on a fresh machine, everything.
    code, output = tool(
        ["apt-get", *options, "indextargets", "--no-release-info", "--format", FORMAT, "Created-By: Packages"]
    )
    if code != 0:
        raise SetupError(
            "apt cannot read its sources (/etc/apt/sources.list, /etc/apt/sources.list.d):\n"
            f"{last_lines(output)}\n  Mend what apt-get names, then try again."
        )
    return parse(output)


def debian_mirrors(sources: Iterable[Source], codename: str) -> list[str]:
    """Where this machine gets Debian CODENAME itself (not its updates, not other vendors' packages)."""
    uris = [source.uri for source in sources if source.suite == codename and "main" in source.components]
    return list(dict.fromkeys(uris))


def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8") as file:
            pairs = [line.strip().split("=", 1) for line in file if "=" in line]
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, value in pairs}


def debian_codename(release: dict[str, str] | None = None) -> str:
    release = os_release() if release is None else release
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        raise SetupError(
            f"this machine runs {release.get('PRETTY_NAME', 'an unknown system')}, not a Debian release "
            "(/etc/os-release). Run this on Debian 12."
        )
    return codename
