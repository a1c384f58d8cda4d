"""Remember the machine's network settings before the engine changes them, and put them back."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
from pathlib import Path
from typing import Any

from engine_common import say, tool
from engine_install import SYSTEM_PATH

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
TABLES = [(program, table) for program in ("iptables", "ip6tables") for table in ("filter", "nat", "raw", "mangle")]
SIOCSIFFLAGS, SIOCGIFMTU, SIOCBRDELBR = 0x8914, 0x8921, 0x89A1  # linux/sockios.h
DOCKER_WORD = re.compile(r"\bDOCKER|\bdocker0\b|\bbr-[0-9a-f]{12}\b")
DOCKER_BRIDGE = re.compile(r"docker0|br-[0-9a-f]{12}")


def record(path: Path) -> None:
    state = {
        "ip_forward": read_forward(),
        "bridges": bridges(),
        "rules": {f"{program} {table}": rules(program, table) for program, table in TABLES},
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(state))
    partial.rename(path)  # whole or not at all: a half record would restore nonsense


def restore(path: Path) -> None:
    """Take back what an engine changed since `record`; nothing where nothing was recorded."""
    try:
        before: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    for bridge in bridges():
        if bridge not in before["bridges"]:
            remove_bridge(bridge)
    for program, table in TABLES:
        for undo in undo_rules(before["rules"][f"{program} {table}"], rules(program, table)):
            iptables(program, table, *undo)
    if read_forward() != before["ip_forward"] and before["ip_forward"] is not None:
        with contextlib.suppress(OSError):
            FORWARD.write_text(before["ip_forward"])
    path.unlink(missing_ok=True)


def read_forward() -> str | None:
    try:
        return FORWARD.read_text().strip()
    except OSError:
        return None


def iptables(program: str, table: str, *arguments: str) -> tuple[int, str]:
    return tool([program, "-w", "5", "-t", table, *arguments], timeout=10, env={**os.environ, "PATH": SYSTEM_PATH})


def rules(program: str, table: str) -> list[str]:
    code, output = iptables(program, table, "-S")
    return output.splitlines() if code == 0 else []


def undo_rules(before: list[str], now: list[str]) -> list[list[str]]:
    """iptables arguments that remove Docker's rules and chains added since, and reset the policies it changed."""
    added = [line.split() for line in now if line not in before and DOCKER_WORD.search(line)]
    flush = [["-F", words[1]] for words in added if words[0] == "-N"]
    drop = [["-D", *words[1:]] for words in added if words[0] == "-A" and ["-F", words[1]] not in flush]
    delete = [["-X", words[1]] for words in added if words[0] == "-N"]
    policies = [line.split() for line in before if line.startswith("-P ") and line not in now] if added else []
    return [*drop, *flush, *delete, *policies]


def bridges() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex() if DOCKER_BRIDGE.fullmatch(name))


def remove_bridge(name: str) -> None:
    """Without the `ip` command, which a small Debian does not have."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
            fcntl.ioctl(control, SIOCBRDELBR, struct.pack("16s24x", name.encode()))
    except OSError as error:
        say(f"the network bridge {name} stays: {error.strerror} (ip link delete {name} removes it)")


def interface_mtu(name: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, SIOCGIFMTU, struct.pack("16s24x", name.encode()))
    return int(struct.unpack("16si20x", answer)[1])


def default_mtu() -> int | None:
    """Packet size of the link that leads to the outside."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1] == "00000000":
                return interface_mtu(fields[0])
    return None
