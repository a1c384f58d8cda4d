from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builder import doctor, gpu
from builder.doctor import Result, State, examine
from builder.errors import MachineError, NoRegistry, ProjectMissing, RegistryReadOnly, Unauthorized
from builder.process import Completed
from builder.project import load
from builder.reference import Reference
from builder.registry import Registry, connection, credentials

from . import records

PROJECT = 'repository = "localhost:1/under-test"\n[targets.embedded]\n'


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without an engine, a program, a proxy or credentials."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return tmp_path


def by_name(results: list[Result]) -> dict[str, Result]:
    return {each.name: each for each in results}


def test_a_machine_that_has_nothing_is_told_all_that_it_lacks(nothing: Path) -> None:
    found = by_name(examine(None, {}, problem=ProjectMissing("there is no builder.toml here")))
    assert {name for name, each in found.items() if each.blocks} == {"engine", "buildx"}
    assert found["engine"].state is State.MISSING
    assert found["compose"].state is State.MISSING
    assert found["git"].state is State.WARNING
    assert found["project"].state is State.WARNING
    assert found["gpu"].what.startswith("none; not needed")
    assert all(each.remedy for each in found.values() if each.state is not State.OK)
    assert "disk" not in found, "the engine's line says that there is none"


def test_a_gpu_that_is_wanted_and_missing_is_a_fault(nothing: Path) -> None:
    found = by_name(examine(None, {}, gpus=True))["gpu"]
    assert (found.state, found.blocks) == (State.MISSING, True)


def test_a_registry_that_is_down_does_not_keep_a_build_from_succeeding(nothing: Path, tmp_path: Path) -> None:
    (tmp_path / "builder.toml").write_text(PROJECT)
    project = load(tmp_path)
    found = by_name(examine(project, project.select(())))
    assert found["project"].state is State.OK
    assert (found["registry"].state, found["registry"].blocks) == (State.MISSING, False)
    assert "refused" in found["registry"].what


def test_a_project_that_is_wrong_is_a_fault(nothing: Path, tmp_path: Path) -> None:
    found = by_name(examine(None, {}, problem=MachineError("it is wrong", where="builder.toml:3", remedy="mend it")))
    assert found["project"] == Result("project", State.FAILED, "it is wrong (builder.toml:3)", "mend it", True)


def test_a_check_that_hangs_has_failed_and_is_not_waited_for(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()

    def git() -> Iterator[Result]:
        hang.wait(30)
        yield Result("git", State.OK, "at last")

    monkeypatch.setattr(doctor, "_git", git)
    began = time.monotonic()
    found = by_name(examine(None, {}, seconds=1))
    hang.set()
    assert time.monotonic() - began < 5
    assert (found["git"].state, found["git"].what) == (State.FAILED, "no answer within 1 s")


def test_an_engine_that_hangs_is_told_of_once(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()

    def connect() -> None:
        hang.wait(30)
        raise MachineError("too late")

    monkeypatch.setattr(doctor.Engine, "connect", connect)
    found = by_name(examine(None, {}, seconds=1))
    hang.set()
    assert (found["engine"].state, found["engine"].blocks) == (State.FAILED, True)
    assert {"disk", "base", "architecture", "memory"} & set(found) == set()


def test_passwords_of_proxies_are_not_shown(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:secret@proxy:3128")
    monkeypatch.setenv("http_proxy", "ann:secret@proxy:3128")
    told = by_name(examine(None, {}))["proxy"].what
    assert "secret" not in told
    assert "proxy:3128" in told


def test_a_ca_bundle_that_is_not_there_is_told_of(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    found = by_name(examine(None, {}))["certificates"]
    assert (found.state, "/nowhere/ca.pem" in found.what) == (State.WARNING, True)


@pytest.mark.parametrize(
    ("free", "state", "blocks"),
    [(50e9, State.OK, False), (5e9, State.WARNING, False), (1e9, State.FAILED, True)],
)
def test_a_full_disk_is_seen_before_a_build_meets_it(
    free: float, state: State, blocks: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Usage:
        def __init__(self) -> None:
            self.free = int(free)

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage())
    engine = _engine({"DockerRootDir": str(tmp_path)}, [{"Size": 7_000_000_000, "InUse": False, "Shared": False}])
    (found,) = doctor._disk(engine)
    assert (found.state, found.blocks) == (state, blocks)
    assert "7.0 GB more in unused build cache" in found.what


def test_the_disk_of_an_engine_elsewhere_is_not_mistaken_for_this_one(tmp_path: Path) -> None:
    (found,) = doctor._disk(_engine({"DockerRootDir": str(tmp_path)}, [], "https://far:2376"))
    assert "another machine" in found.what


def _engine(info: dict[str, Any], cache: list[dict[str, Any]], url: str = "http+docker://localhost") -> Any:
    class Api:
        base_url = url

    class Client:
        api = Api()

        def info(self) -> dict[str, Any]:
            return info

        def df(self) -> dict[str, Any]:
            return {"BuildCache": cache}

    class Engine:
        client = Client()

    return Engine()


# GPUs.


def test_what_nvidia_smi_lists_is_read() -> None:
    text = "NVIDIA H200, 580.95.05, 143771, 9.0\nNVIDIA H200, 580.95.05, [N/A], 9.0\n\nnonsense\n"
    first, second = gpu.parse(text)
    assert first == gpu.Gpu("NVIDIA H200", "580.95.05", 143771, "9.0")
    assert second.memory_mib == 0
    assert gpu.cuda_version("| NVIDIA-SMI 580.95.05   Driver Version: 580.95.05   CUDA Version: 13.0 |") == "13.0"
    assert gpu.cuda_version("") == ""


@pytest.mark.parametrize(
    ("version", "enough"), [("580.95.05", True), ("610.1", True), ("535.183.01", False), ("", False)]
)
def test_cuda_13_wants_driver_580(version: str, enough: bool) -> None:
    assert gpu.Driver((gpu.Gpu("H200", version, 1, "9.0"),), "").runs(13) is enough


@pytest.mark.parametrize(
    ("info", "how"),
    [
        ({"Runtimes": {"nvidia": {}, "runc": {}}}, "runtime"),
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, "CDI"),
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": None, "CDISpecDirs": []}, ""),
        ({}, ""),
    ],
)
def test_the_engine_s_way_to_give_gpus_is_found(info: dict[str, Any], how: str) -> None:
    assert gpu.toolkit(info) == how


def test_an_old_driver_without_a_toolkit_is_told_of_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    old = gpu.Driver((gpu.Gpu("Tesla T4", "470.1", 1, "7.5"),), "11.4")
    monkeypatch.setattr(gpu, "find", lambda: old)
    engine = doctor._Engine()
    engine._engine, engine.info = _engine({}, []), {}
    engine._asked.set()
    driver, toolkit = doctor._gpu(engine, False, {"operators": 13})
    assert (driver.state, driver.blocks, toolkit.state, toolkit.blocks) == (State.WARNING, False, State.MISSING, False)
    assert all(each.blocks for each in doctor._gpu(engine, True, {"operators": 13}))
    (first, *_) = doctor._gpu(engine, False, {"DALI of target old": 11, "libnew.so of target old": 12})
    assert "too old for CUDA 12, which has compiled libnew.so of target old" in first.what
    assert first.remedy == "update NVIDIA's driver to 525 or newer"


def test_the_cuda_of_what_was_built_counts(tmp_path: Path) -> None:
    text = 'repository = "localhost:5000/x"\n[targets.a]\n[targets.cpu]\ncuda = "OFF"\n'
    (tmp_path / "builder.toml").write_text(text)
    project = load(tmp_path)
    assert doctor._cuda(project, project.targets) == {"operators": 13}
    assert doctor._cuda(None, {}) == {"operators": 13}
    built = records.parts(records.plugin().model_copy(update={"cuda": "12.9"}))
    for name in ("a", "cpu"):
        built.model_copy(update={"target": name, "dali_cuda": "12"}).save(project)
    assert doctor._cuda(project, project.targets) == {
        "DALI of target a": 12,
        "libcustomcopy.so of target a": 12,
        "DALI of target cpu": 12,
    }


def test_a_driver_that_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    said = ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",)
    monkeypatch.setattr(gpu, "run", lambda _: Completed("nvidia-smi", 9, f"{said[0]}\n", ()))
    with pytest.raises(MachineError) as failure:
        gpu.find()
    assert failure.value.detail == said


# Registries, played by a server in this process.


@pytest.fixture
def serve() -> Iterator[Callable[[dict[tuple[str, str], tuple[int, dict[str, str], str]]], tuple[str, list[str]]]]:
    """Serves answers by (method, path without the query); gives its host and the list of what it is asked."""
    running = []

    def start(answers: dict[tuple[str, str], tuple[int, dict[str, str], str]]) -> tuple[str, list[str]]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                asked.append(f"{self.command} {self.path} {self.headers.get('Authorization', '-')}")
                key = (self.command, self.path.split("?")[0])
                status, headers, body = answers.get(key, (404, {}, ""))
                if callable(status):
                    status, headers, body = status(self.headers.get("Authorization", ""))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{server.server_port}", asked

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


UPLOADS, TAGS = "/v2/team/x/blobs/uploads/", "/v2/team/x/tags/list"


def connected(host: str) -> Registry:
    return Registry.connect(Reference.parse(f"{host}/team/x"), patience=0)


def test_an_upload_is_begun_and_taken_back(nothing: Path, serve: Any) -> None:
    begun = (202, {"Location": f"{UPLOADS}7?_state=y"}, "")
    host, asked = serve({("GET", "/v2/"): (200, {}, "{}"), ("POST", UPLOADS): begun, ("GET", TAGS): (200, {}, "{}")})
    registry = connected(host)
    assert registry.read()
    registry.write()
    assert [line.rsplit(" ", 1)[0] for line in asked] == [
        "GET /v2/",
        f"GET {TAGS}?n=1",
        f"POST {UPLOADS}",
        f"DELETE {UPLOADS}7?_state=y",
    ]


def test_a_repository_that_does_not_exist_yet_can_be_read(nothing: Path, serve: Any) -> None:
    host, _ = serve({("GET", "/v2/"): (200, {}, "{}")})
    assert not connected(host).read()


@pytest.mark.parametrize(("status", "failure"), [(405, RegistryReadOnly), (404, NoRegistry), (403, Unauthorized)])
def test_why_an_upload_is_refused(status: int, failure: type[Exception], nothing: Path, serve: Any) -> None:
    host, _ = serve({("GET", "/v2/"): (200, {}, "{}"), ("POST", UPLOADS): (status, {}, "no")})
    with pytest.raises(failure):
        connected(host).write()


def test_what_is_no_registry_is_not_taken_for_one(nothing: Path, serve: Any) -> None:
    host, _ = serve({("GET", "/v2/"): (404, {}, "")})
    with pytest.raises(NoRegistry, match="is no registry"):
        connected(host)


def test_a_token_is_fetched_from_where_the_registry_says(nothing: Path, serve: Any) -> None:
    token = {"scope": "", "service": ""}
    service, asked = serve({("GET", "/token"): (200, token, '{"token": "t0ken"}')})
    challenge = {
        "Www-Authenticate": f'Bearer realm="http://{service}/token",service="r",scope="repository:team/x:pull"'
    }

    def tags(authorization: str) -> tuple[int, dict[str, str], str]:
        return (200, {}, "{}") if authorization == "Bearer t0ken" else (401, challenge, "")

    host, _ = serve({("GET", "/v2/"): (401, challenge, ""), ("GET", TAGS): (tags, {}, "")})
    _log_in(nothing, host, "ann", "correct-horse")
    registry = connected(host)
    assert registry.log_in().user == "ann"
    assert registry.read()
    assert asked[0].startswith("GET /token?service=r&scope=repository%3Ateam%2Fx%3Apull Basic ")


def test_a_registry_that_takes_no_password_is_told_of_without_it(nothing: Path, serve: Any) -> None:
    challenge = {"Www-Authenticate": 'Basic realm="r"'}
    host, asked = serve({("GET", "/v2/"): (401, challenge, ""), ("POST", UPLOADS): (401, challenge, "")})
    with pytest.raises(Unauthorized, match="without credentials"):
        connected(host).write()
    _log_in(nothing, host, "ann", "wrong-horse")
    registry = connected(host)
    registry.log_in()
    with pytest.raises(Unauthorized, match="credentials of ann") as failure:
        registry.write()
    assert "wrong-horse" not in str(failure.value.as_json())
    assert "wrong-horse" not in repr(registry.credentials)
    assert len(asked) == 5, "the second of them twice, with and without the password"


def test_a_credential_helper_that_is_missing_is_an_error(nothing: Path) -> None:
    (nothing / "config").mkdir()
    (nothing / "config" / "config.json").write_text(json.dumps({"credHelpers": {"localhost:1": "no-such-helper"}}))
    with pytest.raises(MachineError, match="credentials cannot be read"):
        credentials("localhost:1")


def test_without_a_configuration_nobody_is_logged_in(nothing: Path) -> None:
    assert credentials("localhost:1").is_anonymous
    assert credentials("docker.io").is_anonymous


def test_the_engine_s_own_certificates_for_a_registry_are_used(nothing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CERTIFICATES", nothing)
    assert connection._bundle("example.com") == ""
    (nothing / "example.com").mkdir()
    (nothing / "example.com" / "ca.crt").touch()
    assert connection._bundle("example.com") == str(nothing / "example.com" / "ca.crt")


def _log_in(folder: Path, host: str, user: str, password: str) -> None:
    import base64

    (folder / "config").mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config" / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
