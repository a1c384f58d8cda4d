"""A second engine beside the machine's own, which a test may fill up, kill and start again.

It is made of the same programs, but has folders, sockets and a bridge of its own; the first engine does not know of it.
It changes no rule of the firewall: its bridge gets three by hand, and all that it did is taken back at the end.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from builder.docker.engine import Engine

from .conftest import ROOT

sys.path.insert(0, str(ROOT / "setup"))

import engine_daemon as daemon
import engine_install
import engine_network as network
from engine_common import Places

BRIDGE = "tdb-second0"
GATEWAY, SUBNET = "10.213.77.1", "10.213.77.0/24"
_START_SECONDS = 60.0
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCBRADDBR = 0x8914, 0x8916, 0x891C, 0x89A0  # linux/sockios.h
_IFF_UP = 1


@dataclass(frozen=True)
class _Places(Places):
    programs: Path

    @property
    def prefix(self) -> Path:
        return self.programs


@dataclass
class SecondEngine:
    """Two daemons, and how to reach them."""

    places: Places
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """For what is to use this engine."""
        return {"DOCKER_HOST": f"unix://{self.places.socket}"}

    @property
    def is_up(self) -> bool:
        return daemon.answers(self.places.socket)

    def connect(self) -> Engine:
        return Engine(docker.DockerClient(base_url=f"unix://{self.places.socket}", timeout=600))

    def start(self) -> None:
        """Starts the daemons that do not run, and waits until they answer."""
        for folder in (self.places.log.parent, self.places.data, self.places.run):
            folder.mkdir(parents=True, exist_ok=True)
        # Of the firewall it would clear away the first engine's rules as if they were remains of its own.
        own = [f"--bridge={BRIDGE}", "--iptables=false", "--ip6tables=false", "--ip-masq=false"]
        containerd, dockerd = daemon.daemon_commands(self.places)
        for name, argv, log in (("containerd", *containerd), ("dockerd", [*dockerd[0], *own], dockerd[1])):
            if name not in self.daemons:
                self.daemons[name] = daemon.launch(argv, log, self.places)
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_up:
            assert all(each.poll() is None for each in self.daemons.values()), self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to dockerd, as the kernel does where memory runs out. Its containers and containerd live on."""
        dockerd = self.daemons.pop("dockerd")
        dockerd.send_signal(signal.SIGKILL)
        dockerd.wait()

    def stop(self) -> None:
        daemon.stop(self.places)
        for each in self.daemons.values():
            each.wait()
        self.daemons.clear()

    def log(self) -> str:
        return self.places.log.read_text(errors="replace")[-3000:]

    def fill(self, free: int) -> None:
        """Leaves its disk only `free` bytes."""
        with (self.places.home / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.places.home).free - free)

    def make_room(self) -> None:
        """Takes back what `fill` did."""
        (self.places.home / "ballast").unlink()

    def bytes(self) -> int:
        """What its folders take on the disk: images, caches and downloads."""
        folders = [str(self.places.data), str(self.places.home / "containerd")]
        # Without what is mounted there, which is counted where it is.
        done = subprocess.run(["du", "-xcsB1", *folders], capture_output=True, text=True, check=False)
        return int(done.stdout.splitlines()[-1].split()[0])

    def take(self, image: str) -> None:
        """Takes an image over from the first engine."""
        own = {**os.environ, **self.environment}
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            subprocess.run(["docker", "load", "--quiet"], stdin=saving.stdout, env=own, check=True, capture_output=True)
        assert saving.returncode == 0


@contextmanager
def second_engine(folder: Path, disk: int = 0) -> Iterator[SecondEngine]:
    """An engine that lives in `folder` for the length of a `with`.

    Args:
        disk: bytes of a disk of its own, which takes no more room than what is on it; 0: it is where `folder` is.
    """
    if os.geteuid() != 0:
        pytest.skip("a second engine needs root")
    home = folder / "home"
    home.mkdir(parents=True)
    engine = SecondEngine(_Places(home, folder / "run", _programs(folder / "programs")))
    with _disk(home, disk), _bridge():
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()
    shutil.rmtree(folder, ignore_errors=True)


def _programs(prefix: Path) -> Path:
    """The first engine's programs under other paths, by which its processes can be told from ours."""
    installed = Places.of(os.environ).prefix
    for name in engine_install.BINARIES:
        source = installed / name
        if not source.exists():
            path = f"{engine_install.SYSTEM_PATH}:{os.environ.get('PATH', '')}"
            found = shutil.which(Path(name).name, path=path) or shutil.which(
                Path(name).name, path="/usr/libexec/docker"
            )
            assert found, f"this machine has no {Path(name).name}"
            source = Path(found).resolve()
        target = prefix / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)
    return prefix


@contextmanager
def _disk(home: Path, size: int) -> Iterator[None]:
    if not size:
        yield
        return
    image = home.with_suffix(".ext4")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(home)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)
        image.unlink()


@contextmanager
def _bridge() -> Iterator[None]:
    """A bridge that reaches the outside, without the `ip` command, which a small Debian does not have."""
    rules = [
        ("nat", "POSTROUTING", ["-s", SUBNET, "!", "-o", BRIDGE, "-j", "MASQUERADE"]),
        ("filter", "FORWARD", ["-i", BRIDGE, "-j", "ACCEPT"]),
        ("filter", "FORWARD", ["-o", BRIDGE, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"]),
    ]
    _take_back(rules)  # of a run that was killed
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCBRADDBR, BRIDGE.encode() + b"\0")
        for request, address in ((_SIOCSIFADDR, GATEWAY), (_SIOCSIFNETMASK, "255.255.255.0")):
            packed = struct.pack("16sH2s4s16x", BRIDGE.encode(), socket.AF_INET, b"", socket.inet_aton(address))
            fcntl.ioctl(control, request, packed)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", BRIDGE.encode(), _IFF_UP))
    try:
        for table, chain, rule in rules:
            code, output = network.iptables("iptables", table, "-I", chain, *rule)
            assert code == 0, output
        yield
    finally:
        _take_back(rules)


def _take_back(rules: list[tuple[str, str, list[str]]]) -> None:
    for table, chain, rule in rules:
        network.iptables("iptables", table, "-D", chain, *rule)
    if BRIDGE in (name for _, name in socket.if_nameindex()):
        network.remove_bridge(BRIDGE)
