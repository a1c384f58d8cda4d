"""Runs a command in an image's files without a container engine: processes, mounts and a root of its own.

`command()` gives what to start: `unshare` of util-linux, which runs this file again inside, and that does the rest.
As root the command runs as the image's user; without root it needs a kernel that lets users have namespaces of their
own, and runs as whoever started it. As in a container it cannot write into the image's files; /tmp and /dev/shm are its
own. Of NVIDIA's driver the libraries that lie on this machine are added, as NVIDIA's
container toolkit adds them. The machine's network is shared.

Nothing but the standard library, and Python 3.10: `make gpu-test` takes this file to machines that have no more.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

DRIVER = "/mnt/driver"
"""Where the command finds the driver's libraries, in a file system of its own that is in memory."""
_LIBRARY = re.compile(r"lib(cuda|cudadebugger|nvidia-.*|nvcuvid|nvoptix)\.so(\..*)?")
_ELSEWHERE = (DRIVER, "/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", "/run/opengl-driver/lib")
_LIBC = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 32, 4096, 16384  # linux/mount.h
# What a mount was told when it was made, as statvfs(3) tells it and as mount(2) takes it.
_KEPT = {
    2: 2,
    4: 4,
    8: 8,
    1024: 1024,
    2048: 2048,
    4096: 1 << 21,
}  # nosuid, nodev, noexec, noatime, nodiratime, relatime
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CANNOT = 125
"""The exit status where the command could not be started, as Docker has it."""


@dataclass(frozen=True)
class Room:
    """What a command finds."""

    root: str
    """The folder of the image's files."""
    arguments: list[str]
    environment: dict[str, str]
    gpus: str = ""
    """'' for none, 'all', or device numbers separated by commas."""
    hidden: list[str] = field(default_factory=list)
    """Files of the image that are empty to the command."""
    folders: dict[str, str] = field(default_factory=dict)
    """Folders of this machine by their place in the image, below /mnt."""
    user: str = ""
    """UID:GID; only root can run it as somebody else."""
    shared_memory: str = "2g"
    """The size of its /dev/shm, as in `builder.docker.server`."""


def namespaces() -> list[str]:
    """What gives a command processes and mounts of its own; whatever it starts in turn ends with it."""
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *own, "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]


def command(room: Room) -> list[str]:
    """What to start for `room`."""
    here = str(Path(__file__).resolve())
    return [*namespaces(), sys.executable, "-I", "-S", here, json.dumps(asdict(room))]


def main(document: str) -> int:
    room = Room(**json.loads(document))
    try:
        _furnish(room)
        _move_in(room)
    except (OSError, LookupError, ValueError) as error:
        print(f"enter: {error}", file=sys.stderr)
    return _CANNOT


def _furnish(room: Room) -> None:
    root = room.root
    _bind(root, root)  # a root is a mount, or there are none inside it
    for name in ("dev", "sys"):
        _bind(f"/{name}", f"{root}/{name}")
    # Its own shared memory too: Triton leaves its regions there when it is killed.
    for name, size in (("tmp", "50%"), ("mnt", "1m"), ("dev/shm", room.shared_memory)):
        _mount("tmpfs", f"{root}/{name}", "tmpfs", 0, f"mode=1777,size={size}")
    _mount("proc", f"{root}/proc", "proc", 0)
    if room.gpus:
        place = Path(root + DRIVER)
        place.mkdir()
        for file in driver_libraries():
            _bind_file(str(file), place / file.name)
        if smi := shutil.which("nvidia-smi"):
            _bind_file(smi, place / "nvidia-smi")
    for inside, folder in room.folders.items():
        Path(root + inside).mkdir(parents=True)
        _bind(folder, root + inside)
    for path in room.hidden:
        _bind("/dev/null", root + path)
    _make_read_only(root)  # the last: the places of all others are there


def _move_in(room: Room) -> NoReturn:
    os.chroot(room.root)
    os.chdir("/")
    environment = dict(room.environment)
    if room.gpus:
        for name in ("PATH", "LD_LIBRARY_PATH"):  # the image's own first
            environment[name] = ":".join(filter(None, [environment.get(name, ""), DRIVER]))
        if room.gpus != "all":
            environment["CUDA_VISIBLE_DEVICES"] = room.gpus
    if room.user and Path("/proc/self/uid_map").read_text().split()[2] != "1":
        user, _, group = room.user.partition(":")
        os.setgroups([])
        os.setgid(int(group or user))
        os.setuid(int(user))
        # A new user takes back what `unshare --kill-child` asked the kernel for (prctl(2)).
        if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL.value, 0, 0, 0):
            raise _error("it could outlive what started it")
    program = shutil.which(room.arguments[0], path=environment.get("PATH", os.defpath))
    if program is None:
        raise LookupError(f"there is no {room.arguments[0]}")
    os.execve(program, room.arguments, environment)


def driver_libraries() -> Iterator[Path]:
    """NVIDIA's driver's libraries for 64-bit programs, each once."""
    cache = (
        subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout if _ldconfig() else ""
    )
    found = re.findall(r"libcuda\.so\.1 \(libc6,(?:x86-64|AArch64)\) => (\S+)", cache)
    folders = [str(Path(path).parent) for path in found] + list(_ELSEWHERE)
    for folder in dict.fromkeys(folders):
        libraries = [path for path in _listed(folder) if _LIBRARY.fullmatch(path.name)]
        if any(path.name == "libcuda.so.1" for path in libraries):
            yield from libraries
            return


def _ldconfig() -> bool:
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"  # Debian's users have no sbin
    return shutil.which("ldconfig") is not None


def _listed(folder: str) -> Iterable[Path]:
    return sorted(Path(folder).iterdir()) if Path(folder).is_dir() else ()


def _bind_file(file: str, place: Path) -> None:
    place.touch()
    _bind(file, str(place))


def _bind(this: str, there: str) -> None:
    # With what is mounted inside: parts of it may not be shown alone in a user's own namespaces.
    _mount(this, there, "", _MS_BIND | _MS_REC)


def _make_read_only(root: str) -> None:
    """The image's own files, as in a container; what is mounted inside stays as it is."""
    given = os.statvfs(root).f_flag
    # A user's own namespaces may not take back what this machine forbids.
    kept = sum(flag for told, flag in _KEPT.items() if given & told)
    _mount("", root, "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def _mount(this: str, there: str, kind: str, flags: int, options: str = "") -> None:
    """As in mount(2), which small images have no program for. Raises OSError."""
    names = (each.encode() for each in (this, there, kind))
    if _LIBC.mount(*names, flags, options.encode()):
        raise _error(f"cannot mount {this or 'anew'} on {there}")


def _error(what: str) -> OSError:
    """Of the C library's last call."""
    number = ctypes.get_errno()
    return OSError(number, f"{os.strerror(number)}: {what}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
