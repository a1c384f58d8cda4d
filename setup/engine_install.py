"""Put a Docker engine into a private prefix; the system gets only packages of its own Debian release."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from apt_sources import KEYRING, debian_codename, debian_mirrors, machine_sources
from engine_common import Places, SetupError, last_lines, say, tool

# Debian 12's own Docker has no buildx. Debian 13's needs nothing newer than Debian 12's C library, its runc does:
# that one comes from the machine's own release.
PRIVATE_SUITE = "trixie"
PRIVATE_PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "containerd", "tini")
SYSTEM_PACKAGES = {
    "iptables": Path("/usr/sbin/iptables"),
    "runc": Path("/usr/sbin/runc"),
    "mmdebstrap": Path("/usr/bin/mmdebstrap"),
    "mount": Path("/usr/bin/mount"),  # mmdebstrap needs it and does not depend on it
    "ca-certificates": Path("/etc/ssl/certs/ca-certificates.crt"),
}
BINARIES = (
    "usr/sbin/dockerd",
    "usr/sbin/docker-proxy",
    "usr/bin/docker",
    "usr/bin/docker-init",
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
)
PLUGINS = ("docker-buildx", "docker-compose")
NEEDED_BYTES = 700_000_000
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check_machine(uid: int, release: Mapping[str, str], engine_complaint: str) -> None:
    """Refuse a machine on which nothing may or can be installed."""
    name = release.get("PRETTY_NAME", "an unknown system")
    remedy = (
        "Start a Docker engine that this user may use (with buildx 0.13 or later and compose), "
        "or point DOCKER_HOST to one"
    )
    where = f"no usable Docker engine: {engine_complaint}\n  "
    if release.get("ID") != "debian":
        raise SetupError(
            f"{where}None can be installed either: this machine runs {name} (/etc/os-release), and only "
            f"Debian 12 or later is known to work.\n  {remedy}."
        )
    version = release.get("VERSION_ID", "")
    if version.isdigit() and int(version) < 12:
        raise SetupError(
            f"{where}None can be installed either: {name} has too old a C library (2.34 is needed).\n"
            f"  {remedy}, or use Debian 12 or later."
        )
    if uid != 0:
        raise SetupError(
            f"{where}None can be installed either: that needs root, and this is user id {uid}.\n"
            f"  {remedy}, or run this as root."
        )


def missing_system_packages(path: str = SYSTEM_PATH) -> list[str]:
    # Asked by file, not by dpkg: another vendor's runc serves as well, and its package may conflict with Debian's.
    return [
        package
        for package, file in SYSTEM_PACKAGES.items()
        if not file.exists() and shutil.which(file.name, path=path) is None
    ]


def is_installed(prefix: Path) -> bool:
    plugins = (f"usr/libexec/docker/cli-plugins/{plugin}" for plugin in PLUGINS)
    return all((prefix / file).exists() for file in (*BINARIES, *plugins))


def install(places: Places) -> None:
    """Install what is missing; quick when nothing is."""
    packages = missing_system_packages()
    if packages:
        say(f"installing Debian's {', '.join(packages)} (apt-get install)")
        install_system(packages)
        remember(places, packages)
    if not is_installed(places.prefix):
        say(
            f"unpacking Debian {PRIVATE_SUITE}'s {', '.join(PRIVATE_PACKAGES)} into {places.prefix} "
            "(nothing of it is installed into the system)"
        )
        install_private(places)


def install_system(packages: list[str]) -> None:
    # None of these packages has a service that could start.
    argv = [
        "apt-get",
        "-y",
        "-q",
        "-o",
        "DPkg::Lock::Timeout=120",
        "--no-install-recommends",
        "--no-upgrade",
        "install",
        *packages,
    ]
    code, output = tool(argv, must_finish=True)
    if code != 0:
        # Package lists are missing or outdated, most likely. Another vendor's broken source makes the update fail
        # without harm to Debian's packages, so the second attempt alone decides.
        update = tool(["apt-get", "-q", "update"])[1]
        code, output = tool(argv, must_finish=True)
        if code != 0:
            raise SetupError(
                f"apt-get install {' '.join(packages)} failed:\n{last_lines(update + output)}\n"
                "  Check this machine's network, disk space and apt sources (/etc/apt), then try again."
            )


def remember(places: Places, packages: list[str]) -> None:
    places.home.mkdir(parents=True, exist_ok=True)
    with (places.home / "system-packages").open("a", encoding="utf-8") as file:
        file.writelines(f"{package}\n" for package in packages)


def install_private(places: Places) -> None:
    places.home.mkdir(parents=True, exist_ok=True)
    for leftover in places.home.glob("installing-*"):
        shutil.rmtree(leftover)
    if shutil.disk_usage(places.home).free < NEEDED_BYTES:
        raise SetupError(
            f"not enough room on the disk of {places.home}: {NEEDED_BYTES // 10**6} MB are needed.\n"
            "  Free some, then try again."
        )
    with tempfile.TemporaryDirectory(prefix="installing-", dir=places.home) as directory:
        work = Path(directory)
        work.chmod(0o755)  # apt fetches as its own user
        unpacked = work / "engine"
        for archive in download(work):
            code, output = tool(["dpkg-deb", "-x", str(archive), str(unpacked)])
            if code != 0:
                raise SetupError(
                    f"cannot unpack {archive.name} into {places.home}:\n{last_lines(output)}\n"
                    "  Check the disk, then try again."
                )
        check_libraries(unpacked)
        shutil.rmtree(places.prefix, ignore_errors=True)
        unpacked.rename(places.prefix)


def download(work: Path) -> list[Path]:
    """Fetch and verify the packages from the first of the machine's mirrors that serves them."""
    codename = debian_codename()
    mirrors = debian_mirrors(machine_sources(), codename)
    if not mirrors:
        raise SetupError(
            f"apt has no source for Debian {codename} main (/etc/apt/sources.list, "
            "/etc/apt/sources.list.d).\n  Add the mirror that this machine should use, then try again."
        )
    if not Path(KEYRING).exists():
        raise SetupError(
            f"{KEYRING} is missing, so packages cannot be verified.\n"
            "  apt-get install debian-archive-keyring, then try again."
        )
    complaints = ""
    for mirror in mirrors:
        config = write_apt_config(work, mirror)
        packages = work / "packages"
        code, output = tool(["apt-get", "-q", "-c", str(config), "--error-on=any", "update"])
        if code == 0:
            argv = ["apt-get", "-q", "-c", str(config), "download", *PRIVATE_PACKAGES]
            code, output = tool(["sh", "-c", 'cd "$0" && exec "$@"', str(packages), *argv])
        archives = sorted(packages.glob("*.deb"))
        if code == 0 and len(archives) == len(PRIVATE_PACKAGES):
            return archives
        complaints += output
    hint = (
        "The archive keys are older than Debian 13: apt-get install --only-upgrade debian-archive-keyring"
        if "NO_PUBKEY" in complaints
        else "Check the network and the mirrors in /etc/apt"
    )
    raise SetupError(
        f"cannot get Debian {PRIVATE_SUITE}'s Docker packages from this machine's apt mirrors "
        f"({', '.join(mirrors)}):\n{last_lines(complaints)}\n  {hint}, then try again."
    )


def write_apt_config(work: Path, mirror: str) -> Path:
    """An apt configuration whose state is apart from the system's; proxies and credentials stay the machine's own."""
    state = work / "apt"
    for directory in (state / "lists" / "partial", state / "cache" / "archives" / "partial", work / "packages"):
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(LookupError):  # apt fetches as this user where it exists
            shutil.chown(directory, "_apt")
    (state / "status").touch()
    (state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {PRIVATE_SUITE} main\n")
    config = state / "apt.conf"
    config.write_text(f"""\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "{state}";
Dir::State::lists "{state}/lists";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
Dir::Etc::SourceList "{state}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::AllowInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
""")
    return config


def check_libraries(prefix: Path) -> None:
    lacking = set()
    for binary in BINARIES:
        output = tool(["ldd", str(prefix / binary)])[1]
        lacking |= {line.split()[0] for line in output.splitlines() if "not found" in line}
    if lacking:
        raise SetupError(
            f"Debian {PRIVATE_SUITE}'s Docker engine needs libraries that this machine lacks: "
            f"{', '.join(sorted(lacking))}.\n  Install the packages that hold them (apt-get install), "
            "then try again."
        )


def make_config(places: Places, environ: Mapping[str, str]) -> None:
    """A Docker config directory with our plugins and the user's own credentials, linked and never copied."""
    plugins = places.config / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    places.config.chmod(0o700)
    for plugin in PLUGINS:
        link(plugins / plugin, places.prefix / "usr/libexec/docker/cli-plugins" / plugin)
    own = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or "/root") / ".docker")
    if own.resolve() == places.config.resolve():  # inherited from an earlier run: the link would lead to itself
        own = Path(environ.get("HOME") or "/root") / ".docker"
    link(places.config / "config.json", own.absolute() / "config.json")


def link(path: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        if path.readlink() == target:
            return
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def command_environment(places: Places, environ: Mapping[str, str]) -> dict[str, str]:
    changed = dict(environ)
    # A context's name would win over DOCKER_HOST, TLS settings belong to another engine.
    for name in ("DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "BUILDX_BUILDER"):
        changed.pop(name, None)
    changed["DOCKER_HOST"] = f"unix://{places.socket}"
    changed["DOCKER_CONFIG"] = str(places.config)
    changed["PATH"] = f"{places.prefix}/usr/bin:{environ.get('PATH') or SYSTEM_PATH}"
    return changed


def forget_note(places: Places) -> str:
    """What `clean` leaves behind, in words."""
    try:
        packages = (places.home / "system-packages").read_text(encoding="utf-8").split()
    except OSError:
        return ""
    return f"Debian's own packages that were installed stay (apt-get remove {' '.join(packages)} removes them)"
