"""Start and stop the private engine, and leave the machine as it was."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import engine_network as network
from engine_common import LOCKS, Places, SetupError, last_lines, say
from engine_install import SYSTEM_PATH

START_SECONDS = 60.0
STOP_SECONDS = 20.0
MNT_DETACH = 2  # sys/mount.h
DAEMONS = ("dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy")


# --- whose process is it


def is_ours(pid: int, prefix: Path, proc: Path = Path("/proc")) -> bool:
    """Whether the process runs a daemon of our prefix.

    The name alone does not tell: seen from a chroot or container, another engine's path may look the same. So the file
    itself is compared.
    """
    link = proc / str(pid) / "exe"
    try:
        path = link.readlink()
        return path.name in DAEMONS and prefix in path.parents and link.samefile(path)
    except OSError:  # gone meanwhile, a kernel thread, or not to be seen by us
        return False


def our_processes(prefix: Path, proc: Path = Path("/proc")) -> dict[int, str]:
    """Process ids and daemon names."""
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdigit() and is_ours(int(entry.name), prefix, proc):
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "exe").readlink().name
    return found


def send(signum: int, pids: Iterable[int], prefix: Path) -> None:
    for pid in pids:
        # Asked again right before, since the number may have gone to another process.
        if is_ours(pid, prefix):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)


def wait_gone(pids: Iterable[int], prefix: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    remaining = list(pids)
    while remaining:
        reap()
        remaining = [pid for pid in remaining if is_ours(pid, prefix)]
        if remaining and time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def reap() -> None:
    """Collect ended daemons that are children of this process, or they stay as zombies."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# --- start


def answers(path: Path, timeout: float = 5.0) -> bool:
    """Whether a Docker engine answers at this socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def start(places: Places) -> None:
    """Make sure that our engine answers; a live one is kept, remains of a dead one are cleared away first."""
    running = our_processes(places.prefix)
    if {"dockerd", "containerd"} <= set(running.values()) and answers(places.socket):
        return
    if running or runtime_files(places):
        say("clearing away what an earlier run left behind")
        stop(places)
    places.log.parent.mkdir(parents=True, exist_ok=True)
    places.data.mkdir(parents=True, exist_ok=True)
    network.record(places.before)
    daemons = [launch(argv, log, places) for argv, log in daemon_commands(places)]
    deadline = time.monotonic() + START_SECONDS
    while not answers(places.socket):
        dead = [daemon for daemon in daemons if daemon.poll() is not None]
        if dead or time.monotonic() > deadline:
            raise SetupError(start_complaint(places, bool(dead)))
        time.sleep(0.05)


def daemon_commands(places: Places) -> list[tuple[list[str], Path]]:
    """The two daemons and their logs. Their settings are files of ours: /etc/docker is neither read nor changed.

    containerd is started by us and not by dockerd, which would take the machine's containerd where there is one.
    """
    settings = places.home / "etc"
    settings.mkdir(parents=True, exist_ok=True)
    containerd = settings / "containerd.toml"
    containerd.write_text(f"""\
version = 2
root = "{places.home}/containerd"
state = "{places.run}/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{places.containerd_socket}"
[ttrpc]
  address = "{places.containerd_socket}.ttrpc"
""")
    dockerd = settings / "daemon.json"
    dockerd.write_text(json.dumps(daemon_settings(network.default_mtu()), indent=2) + "\n")
    return [
        ([f"{places.prefix}/usr/bin/containerd", "--config", str(containerd)], places.log.with_name("containerd.log")),
        (
            [
                f"{places.prefix}/usr/sbin/dockerd",
                "--config-file",
                str(dockerd),
                "--host",
                f"unix://{places.socket}",
                "--group",
                "0",
                "--data-root",
                str(places.data),
                "--exec-root",
                f"{places.run}/exec",
                "--pidfile",
                f"{places.run}/docker.pid",
                "--containerd",
                str(places.containerd_socket),
            ],
            places.log,
        ),
    ]


def daemon_settings(mtu: int | None) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "features": {"containerd-snapshotter": True},
        # A gigabyte of base at each change of it would fill a disk in the end.
        "builder": {"gc": {"enabled": True, "defaultKeepStorage": "30GB"}},
    }
    # Larger packets than the machine's own link takes get lost behind some tunnels.
    if mtu is not None and mtu < 1500:
        settings["mtu"] = mtu
    return settings


def launch(argv: list[str], log: Path, places: Places) -> subprocess.Popen[bytes]:
    # In a session of its own: a terminal's Ctrl-C must not stop the engine under a build.
    with log.open("wb") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=daemon_environment(places.prefix, os.environ),
            start_new_session=True,
        )


def daemon_environment(prefix: Path, environ: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("DOCKER_") and name not in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
    }
    return {**kept, "PATH": f"{prefix}/usr/sbin:{prefix}/usr/bin:{SYSTEM_PATH}"}


def start_complaint(places: Places, dead: bool) -> str:
    what = "ended while starting" if dead else f"did not answer within {START_SECONDS:g} s"
    text = ""
    with contextlib.suppress(OSError):
        text = places.log.read_text(errors="replace")
    if shutil.disk_usage(places.home).free < 50_000_000:
        hint = f"The disk of {places.home} is full: free some room"
    elif "iptables" in text or "ermission denied" in text or "not permitted" in text:
        hint = "The engine needs a machine (or a privileged container) that lets root change iptables and mounts"
    else:
        hint = "Mend what the log names (`clean` also removes the engine's data)"
    return f"the Docker engine {what} (log: {places.log}):\n{last_lines(text)}\n  {hint}, then try again."


# --- stop


def stop(places: Places) -> bool:
    """Stop our engine if it runs, clear away its remains, restore the network. Whether anything ran."""
    prefix = places.prefix
    running = our_processes(prefix)
    # dockerd first: it stops its containers. What outlives it belongs to containers that it could not end.
    for name in ("dockerd", "containerd"):
        pids = [pid for pid, daemon in our_processes(prefix).items() if daemon == name]
        send(signal.SIGTERM, pids, prefix)
        if not wait_gone(pids, prefix, STOP_SECONDS):
            send(signal.SIGKILL, pids, prefix)
            wait_gone(pids, prefix, 5)
    end_containers(places)
    rest = our_processes(prefix)
    send(signal.SIGKILL, rest, prefix)
    wait_gone(rest, prefix, 5)
    unmount(places)
    network.restore(places.before)
    remove_runtime_files(places)
    return bool(running)


def end_containers(places: Places) -> None:
    """Kill what still runs in a container of ours: nothing else can, once its daemons are gone."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and lives_in_our_container(entry, places.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def lives_in_our_container(process: Path, home: Path, own_root: Path = Path("/")) -> bool:
    """Whether the root of the process is one of the engine's own overlay mounts.

    Where this machine is itself a container of such an engine, its own root looks just so and must not count.
    """
    try:
        for line in (process / "mountinfo").read_text().splitlines():
            if line.split(" ")[4] == "/":
                layers = [Path(layer) for layer in re.findall(r"(?:dir=|:)(/[^,: ]*)", line)]
                return (
                    any(home in layer.parents and layer.is_dir() for layer in layers)
                    and (process / "root").stat().st_dev != own_root.stat().st_dev
                )
    except (OSError, IndexError):  # gone meanwhile
        pass
    return False


def unmount(places: Places) -> None:
    system = ctypes.CDLL(None)  # a small Debian has no `umount` command
    for _ in range(3):  # mounts may lie on top of each other
        points = mounts_under((places.home, places.run), Path("/proc/self/mountinfo").read_text())
        for point in reversed(points):
            system.umount2(os.fsencode(point), MNT_DETACH)
        if not points:
            return


def mounts_under(roots: Iterable[Path], mountinfo: str) -> list[str]:
    """Mount points strictly below the roots: a root that is itself a mount is the machine's own affair."""
    points = []
    for line in mountinfo.splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), line.split(" ")[4])
        if any(root in Path(point).parents for root in roots):
            points.append(point)
    return points


def runtime_files(places: Places) -> list[Path]:
    """Sockets, pid files and the like, not the locks: other runs may wait on those."""
    return [entry for entry in places.run.iterdir() if entry.name not in LOCKS] if places.run.is_dir() else []


def remove_runtime_files(places: Places) -> None:
    for entry in runtime_files(places):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
