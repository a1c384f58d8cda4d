"""The machine setup's decisions, without an engine and without a network."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "embedded"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "setup"))

import apt_sources
import bootstrap
import demo
import engine
import engine_daemon
import engine_install
import engine_network
from engine_common import Places, SetupError, is_same_file, locked

DEBIAN = {"ID": "debian", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm", "PRETTY_NAME": "Debian 12"}
ONE_LINE = """\
# deb http://off.example/debian bookworm main
deb [arch=amd64] http://one.example/debian bookworm main contrib  # note
deb-src http://one.example/debian bookworm main
"""
DEB822 = """\
Types: deb deb-src
URIs: http://two.example/debian http://three.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "home", tmp_path / "run")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
@pytest.mark.parametrize(
    ("name", "text", "mirrors"),
    [
        ("debian.list", ONE_LINE, ["http://one.example/debian/"]),
        ("debian.sources", DEB822, ["http://two.example/debian/", "http://three.example/debian/"]),
    ],
)
def test_apt_sources_of_both_formats(tmp_path: Path, name: str, text: str, mirrors: list[str]) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (tmp_path / "lists").mkdir()
    (parts / name).write_text(text)
    sources = apt_sources.machine_sources(
        [
            "-o",
            f"Dir::Etc::SourceParts={parts}",
            "-o",
            "Dir::Etc::SourceList=/dev/null",
            "-o",
            f"Dir::State::Lists={tmp_path}/lists",
        ]
    )
    assert apt_sources.debian_mirrors(sources, "bookworm") == mirrors


def test_components_of_one_suite_become_one_source() -> None:
    targets = "http://m/debian/|bookworm|main\nhttp://m/debian/|bookworm|contrib\nhttp://m/debian/|bookworm|main\n\n"
    [source] = apt_sources.parse(targets)
    assert source.line("[trusted=no]") == "deb [trusted=no] http://m/debian/ bookworm main contrib"


def test_the_debian_image_is_of_debian_12_on_every_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    suites = ("trixie", "trixie-updates", "trixie-security", "bookworm", "nodistro", "trixiesque")
    sources = [apt_sources.Source(f"http://m/{suite}", suite, ("main",)) for suite in suites]
    changed = bootstrap.of_release(sources, "trixie", "bookworm")
    assert [source.suite for source in changed] == [
        "bookworm", "bookworm-updates", "bookworm-security", "bookworm", "nodistro", "trixiesque",
    ]  # fmt: skip
    assert [source.uri for source in changed] == [source.uri for source in sources]
    assert bootstrap.of_release(changed, "bookworm", "bookworm") == changed
    # A mirror without the older release leaves the choice to the next one.
    monkeypatch.setattr(bootstrap, "serves", lambda source: source.uri != "http://m/trixie")
    usable = bootstrap.usable_sources(changed, "bookworm")
    assert [source.uri for source in usable] == [
        "http://m/bookworm", "http://m/trixie-updates", "http://m/trixie-security",
    ]  # fmt: skip


def test_the_machines_keyring_verifies_the_debian_image(tmp_path: Path) -> None:
    assert bootstrap.keyring(str(tmp_path)) == [f"--keyring={tmp_path}"]
    assert bootstrap.keyring(str(tmp_path / "none")) == []


def test_the_demo_takes_free_ports_where_the_user_chose_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "is_free", lambda port: port != 5000)
    environ = {"HTTP_PORT": "8001", "METRICS_PORT": ""}
    demo.choose_ports(environ)
    assert environ["HTTP_PORT"] == "8001"
    assert environ["METRICS_PORT"] == "8002"
    assert len(set(environ.values())) == 4
    told = capsys.readouterr().err
    assert f"port 5000 is taken: REGISTRY_PORT={environ['REGISTRY_PORT']}" in told
    assert f"port 8001 is taken: GRPC_PORT={environ['GRPC_PORT']}" in told
    assert "METRICS_PORT" not in told


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("github.com/docker/buildx v0.14.0 171fcbe", (0, 14)),
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", (0, 13)),
        ("github.com/docker/buildx v1.2.3 x", (1, 2)),
        ("docker: 'buildx' is not a docker command.", None),
    ],
)
def test_buildx_version(output: str, version: tuple[int, int] | None) -> None:
    assert engine.buildx_version(output) == version


def fake(api: str | None, buildx: str = "0.13.1", compose: bool = True) -> engine.Runner:
    def run(argv: Sequence[str]) -> tuple[int, str]:
        if argv[1] == "version":
            return (0, f"{api}\n") if api else (1, "\nCannot connect to the Docker daemon\n")
        if argv[1] == "buildx":
            return (0, f"github.com/docker/buildx {buildx} x\n") if buildx else (1, "docker: 'buildx' is not a command")
        return (0, "Docker Compose version 2.26.1") if compose else (1, "docker: 'compose' is not a command")

    return run


def test_an_engine_that_serves_needs_nothing() -> None:
    assert engine.probe(fake("1.44")) is None
    assert engine.probe(lambda argv: fake("WARNING: a note on stderr\n1.51")(argv)) is None


def test_a_client_alone_is_no_engine() -> None:
    assert engine.probe(fake(None)) == "Cannot connect to the Docker daemon"
    assert engine.probe(lambda _: (127, "docker: No such file or directory")) is not None


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (fake("1.43"), "its API is 1.43, and 1.44"),
        (fake("1.45", buildx="v0.12.1"), "buildx` is 0.12, and 0.13"),
        (fake("1.45", buildx=""), "buildx` is missing"),
        (fake("1.45", compose=False), "compose` does not work"),
    ],
)
def test_an_unfit_engine_is_replaced_where_one_can_be_installed(
    run: engine.Runner, words: str, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    assert engine.needs_private(run, {}, places, 0, DEBIAN)
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(words, line)
    assert line.endswith("; using a private engine instead")
    for uid, release in ((1000, DEBIAN), (0, {"ID": "fedora"})):
        with pytest.raises(engine.UnfitEngine, match=words):
            engine.needs_private(run, {}, places, uid, release)


def test_an_engine_that_the_user_chose_has_to_answer(places: Places) -> None:
    host = {"DOCKER_HOST": "tcp://ci:2375"}
    with pytest.raises(SetupError, match=r"DOCKER_HOST=tcp://ci:2375: Cannot connect.*\n  Start it.*unset"):
        engine.needs_private(fake(None), host, places, 0, DEBIAN)
    assert not engine.needs_private(fake("1.44"), host, places, 0, DEBIAN)
    # `make shell` sets it to our own, which may have died since.
    assert engine.needs_private(fake(None), {"DOCKER_HOST": f"unix://{places.socket}"}, places, 0, DEBIAN)
    assert engine.needs_private(fake(None), {}, places, 0, DEBIAN)


@pytest.mark.parametrize(
    ("uid", "release", "words"),
    [
        (0, {"ID": "fedora", "PRETTY_NAME": "Fedora"}, "runs Fedora"),
        (0, {}, "an unknown system"),
        (0, {**DEBIAN, "VERSION_ID": "11"}, "too old"),
        (1000, DEBIAN, "needs root"),
    ],
)
def test_machines_that_cannot_be_set_up(uid: int, release: dict[str, str], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        engine_install.check_machine(uid, release, "no answer")


@pytest.mark.parametrize("release", [DEBIAN, {**DEBIAN, "VERSION_ID": "13"}, {"ID": "debian"}])
def test_debian_and_root_will_do(release: dict[str, str]) -> None:
    engine_install.check_machine(0, release, "no answer")


def process(proc: Path, pid: int, exe: Path) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "exe").symlink_to(exe)


def test_only_daemons_of_our_prefix_are_ours(tmp_path: Path) -> None:
    ours, other, proc = tmp_path / "engine", tmp_path / "other", tmp_path / "proc"
    for binary in (ours / "sbin/dockerd", ours / "bin/docker", other / "sbin/dockerd"):
        binary.parent.mkdir(parents=True, exist_ok=True)
        binary.touch()
    process(proc, 1, ours / "sbin/dockerd")
    process(proc, 2, other / "sbin/dockerd")
    process(proc, 3, ours / "bin/docker")
    process(proc, 4, ours / "bin/containerd")  # names a file that is not there: another root's path
    assert engine_daemon.our_processes(ours, proc) == {1: "dockerd"}
    assert not engine_daemon.is_ours(5, ours, proc)


def test_stale_files_go_and_the_process_that_a_pid_file_names_stays(places: Places) -> None:
    (places.run / "exec").mkdir(parents=True)
    for name in ("docker.pid", "docker.sock", "mutex", "users"):
        (places.run / name).write_text(str(os.getpid()))
    assert engine_daemon.stop(places) is False
    assert sorted(entry.name for entry in places.run.iterdir()) == ["mutex", "users"]


def test_a_file_in_place_of_the_socket_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch()
    assert not engine_daemon.answers(tmp_path / "docker.sock")


def test_a_container_of_ours_is_told_by_its_root(tmp_path: Path) -> None:
    layer = tmp_path / "home/containerd/1/fs"
    layer.mkdir(parents=True)
    entry = tmp_path / "proc/7"
    entry.mkdir(parents=True)
    (entry / "root").symlink_to("/proc")  # another file system than that of tmp_path
    (entry / "mountinfo").write_text(f"1 2 0:3 / / rw - overlay overlay rw,lowerdir=/x,upperdir={layer}\n")
    assert engine_daemon.lives_in_our_container(entry, tmp_path / "home", own_root=tmp_path)
    assert not engine_daemon.lives_in_our_container(entry, tmp_path / "elsewhere", own_root=tmp_path)
    assert not engine_daemon.lives_in_our_container(entry, tmp_path / "home", own_root=Path("/proc"))


def test_mounts_strictly_below_our_folders() -> None:
    mountinfo = "".join(f"1 2 0:3 / {point} rw - ext4 x rw\n" for point in ("/", "/d", "/d/a\\040b", "/dx/c"))
    assert engine_daemon.mounts_under([Path("/d")], mountinfo) == ["/d/a b"]


def test_only_rules_added_by_docker_are_undone() -> None:
    before = ["-P FORWARD ACCEPT", "-N MINE", "-A MINE -j RETURN"]
    now = [
        "-P FORWARD DROP",
        "-N MINE",
        "-N DOCKER",
        "-A MINE -j RETURN",
        "-A INPUT -s 10.0.0.1/32 -j DROP",
        "-A FORWARD -o docker0 -j DOCKER",
        "-A DOCKER -j RETURN",
    ]
    undone = [" ".join(words) for words in engine_network.undo_rules(before, now)]
    assert undone == ["-D FORWARD -o docker0 -j DOCKER", "-F DOCKER", "-X DOCKER", "-P FORWARD ACCEPT"]
    assert engine_network.undo_rules(now, now) == []


def test_config_links_plugins_and_the_users_credentials(places: Places, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "me"), "PATH": "/bin", "DOCKER_CONTEXT": "other"}
    for _ in range(2):
        engine_install.make_config(places, environ)
    config = places.config / "config.json"
    assert config.is_symlink()
    assert config.readlink() == tmp_path / "me/.docker/config.json"
    assert (places.config / "cli-plugins/docker-buildx").is_symlink()
    engine_install.make_config(places, {**environ, "DOCKER_CONFIG": str(tmp_path / "own")})
    assert config.readlink() == tmp_path / "own/config.json"
    # Inherited from an earlier run: a link to itself would hide the user's credentials.
    engine_install.make_config(places, {**environ, "DOCKER_CONFIG": str(places.config)})
    assert config.readlink() == tmp_path / "me/.docker/config.json"
    changed = engine_install.command_environment(places, environ)
    assert changed["DOCKER_HOST"] == f"unix://{places.socket}"
    assert changed["PATH"].endswith(":/bin")
    assert "DOCKER_CONTEXT" not in changed


def test_a_lock_whose_file_was_removed_guards_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run/mutex"
    with locked(path) as file:
        assert is_same_file(file.fileno(), path)
        path.unlink()
        assert not is_same_file(file.fileno(), path)
        with locked(path) as second:
            assert is_same_file(second.fileno(), path)


def test_the_tests_variable_moves_everything(tmp_path: Path) -> None:
    places = Places.of({"TRITON_DALI_BUILDER_HOME": str(tmp_path)})
    assert places.home in places.run.parents
    assert Places.of({}).socket == Path("/run/triton-dali-builder/docker.sock")
