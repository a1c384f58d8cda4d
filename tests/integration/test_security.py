"""What an image and what lies beside it must not tell, and what its server must not let strangers do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import ssl
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bcrypt
import docker.types
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from tritonclient.utils import InferenceServerException

from builder.docker.engine import Engine
from builder.docker.saved import SavedBlobs, base_image
from builder.docker.secrets import pip_conf
from builder.docker.server import ContainerServer, serving
from builder.layers import unpacked
from builder.oci import Layout
from builder.reference import Digest, Reference
from builder.registry import Registry
from builder.triton import Endpoint, wait_until_ready

from .conftest import ROOT, Finished, Project, copy_project
from .test_image import _answers
from .test_push import _log_in

PLATFORM = "linux/amd64"
SHELLS = ("/usr/bin/bash", "/usr/bin/dash")
"""Debian's; /bin/sh is a link to the second."""

# ---- planted secrets -----------------------------------------------------------------------------------------------

# An index without packages, and the proxy on the way to it. It tells what it was given to be let in.
_INDEX = """
import http.server

class Index(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.headers["Authorization"], self.headers["Proxy-Authorization"], flush=True)
        self.send_error(404)

http.server.ThreadingHTTPServer(("", 8080), Index).serve_forever()
"""
_UNPACK = "set -e  # unpack the server\n"
# What the stage of the server finds, by its hash: the Dockerfile itself tells no secret.
_USES = """set -e  # unpack the server
    find() {{ grep -oh 'planted[a-z0-9]*' | sort -u | sha256sum | cut -c -64; }}
    [ "$(printenv HTTP_PROXY | find)" = {proxy} ]
    [ "$(find </run/secrets/pip)" = {index} ]
    [ "$(find </run/secrets/ca)" = {ca} ]
"""


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


_MARK = f"planted{secrets.token_hex(7)}"
"""How every secret begins: 21 bytes, which after a user of two letters are 28 whole characters in base64."""


@dataclass
class Planted:
    """A project that was built, proven and pushed with secrets in all that it may use."""

    project: Project
    proxy: str = f"{_MARK}proxy"
    index: str = f"{_MARK}index"
    ca: str = f"{_MARK}ca"
    registry: str = f"{_MARK}registry"
    key: str = f"{_MARK}key"
    sealed: str = ""
    """A line of the private key's file."""
    asked: str = ""
    """What the index was given."""
    said: dict[str, Finished] = field(default_factory=dict)
    """The commands' output."""

    @property
    def needles(self) -> list[bytes]:
        """What finds every secret, also where a header or Docker's configuration has it."""
        return [_MARK.encode(), base64.b64encode(_MARK.encode()), self.sealed.encode()]

    @property
    def image(self) -> dict[str, Any]:
        return dict(self.said["build"].document["images"][0])

    @property
    def layout(self) -> Layout:
        return Layout(self.project.root / ".builder/embedded/oci")

    @property
    def reference(self) -> str:
        return str(self.said["push"].document["pushed"][0]["reference"])

    def found_in(self, content: bytes | str) -> list[bytes]:
        encoded = content.encode() if isinstance(content, str) else content
        return [needle for needle in self.needles if needle in encoded]


@pytest.fixture(scope="module")
def planted(
    image: dict[str, Any],
    engine: Engine,
    start_registry: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Planted]:
    """Built, proven and pushed with passwords for proxy, index, registry and key, and with a mark in the certificates.

    The build does use them: the stage that unpacks the server is made anew each time, ends unless it was given proxy,
    index and certificates, and pip asks an index behind that proxy, which tells the passwords that it got. The other
    stages take the same secrets by the same lines of the Dockerfile; they come from the cache. builder.lock is not made
    here: what it would hold is in a label.

    BuildKit frees what it used longest ago, also the stages below one that is still kept. Nothing but the index can be
    reached through that proxy, so all that the build needs is made or used right before it, over the same edit.
    """
    folder = tmp_path_factory.mktemp("planted")
    planted = Planted(Project(copy_project(folder / "project")))
    project = planted.project
    hashes = {
        name: hashlib.sha256(f"{getattr(planted, name)}\n".encode()).hexdigest() for name in ("proxy", "index", "ca")
    }
    project.edit("builder.toml", "under-test", "under-test-planted")
    first = f"{_UNPACK}    : {secrets.token_hex(7)}\n"
    project.edit("Dockerfile", _UNPACK, first)
    project.builder("build").ok()
    bases = {_base(project)}
    project.edit("Dockerfile", first, _USES.format(**hashes))
    registry = _registry(planted, start_registry, folder)
    _key(planted, folder)
    with engine.running(image["digest"], entrypoint=["python3", "-c", _INDEX]) as index:
        index.reload()
        (network,) = index.attrs["NetworkSettings"]["Networks"].values()
        project.environment |= _network(planted, network["IPAddress"], folder)
        planted.said["build"] = project.builder("build", "--json", "--verbose").ok()
        planted.said["smoke"] = project.builder("smoke", "--json", "--verbose").ok()
        to = f"{registry}/under-test/planted:1"
        arguments = ("--sign", str(folder / "cosign.key"), "--json", "--verbose")
        planted.said["push"] = project.builder("push", to, *arguments).ok()
        planted.said["why"] = _mistake(planted)
        planted.asked = bytes(index.logs()).decode()
    yield planted
    for base in bases | {_base(project)}:
        engine.client.images.remove(base, force=True)


def _base(project: Project) -> str:
    return str(json.loads((project.root / ".builder/embedded/parts.json").read_text())["base"])


def _registry(planted: Planted, start: Callable[..., str], folder: Path) -> str:
    """One that wants the password, which is in a Docker configuration."""
    passwords = folder / "htpasswd"
    passwords.write_text("rx:" + bcrypt.hashpw(planted.registry.encode(), bcrypt.gensalt(4)).decode() + "\n")
    passwords.chmod(0o644)
    settings = {"REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM": "r"}
    address = start({**settings, "REGISTRY_AUTH_HTPASSWD_PATH": "/htpasswd"}, {passwords: "/htpasswd"})
    _log_in(planted.project, folder / "docker", address, "rx", planted.registry)
    return address


def _key(planted: Planted, folder: Path) -> None:
    encryption = BestAvailableEncryption(planted.key.encode())
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    (folder / "cosign.key").write_bytes(pem)
    planted.sealed = pem.decode().splitlines()[2]
    planted.project.environment["COSIGN_PASSWORD"] = planted.key


def _network(planted: Planted, address: str, folder: Path) -> dict[str, str]:
    """The machine's own settings, and secrets: the proxy is for the index alone."""
    bundle = folder / "ca.pem"
    own = ssl.get_default_verify_paths()
    with bundle.open("wb") as joined:
        for each in filter(None, (own.cafile or own.openssl_cafile,)):
            joined.write(Path(each).read_bytes())
        joined.write(f"# {planted.ca}\n".encode())
    conf = pip_conf()
    real = [str(urlsplit(url).hostname) for url in re.findall(r"https?://\S+", conf)]
    trusted = re.findall(r"trusted-host = (.*)", conf)
    proxy = f"http://px:{planted.proxy}@{address}:8080"
    temporary = folder / "tmp"
    temporary.mkdir()
    return {
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "NO_PROXY": ",".join(["localhost", "127.0.0.1", "pypi.org", "files.pythonhosted.org", *real]),
        "no_proxy": ",".join(["localhost", "127.0.0.1", "pypi.org", "files.pythonhosted.org", *real]),
        # A name that nobody can own (RFC 2606).
        "PIP_EXTRA_INDEX_URL": f"http://ix:{planted.index}@index.example/simple",
        "PIP_TRUSTED_HOST": " ".join(["index.example", *trusted]),
        "PIP_CERT": str(bundle),
        "SSL_CERT_FILE": str(bundle),
        "TMPDIR": str(temporary),
    }


def _mistake(planted: Planted) -> Finished:
    """A mistake of the program's own, as far as it leaves a file for whoever mends it."""
    script = (
        "import builder.project\nfrom builder.cli import main\n"
        "def load(*_):\n    raise RuntimeError('no answer from ' + __import__('os').environ['PIP_EXTRA_INDEX_URL'])\n"
        "builder.project.load = load\nmain(['push', '--json', '--verbose'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=planted.project.root,
        env={**os.environ, **planted.project.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def test_the_secrets_were_used(planted: Planted) -> None:
    asked = planted.asked.splitlines()
    assert f"Basic {_basic('ix', planted.index)} Basic {_basic('px', planted.proxy)}" in asked
    assert planted.said["push"].document["pushed"][0]["bytes_uploaded"] > 100_000_000
    assert planted.said["why"].returncode == 1


@pytest.mark.parametrize("command", ["build", "smoke", "push", "why"])
def test_no_command_says_a_secret(planted: Planted, command: str) -> None:
    done = planted.said[command]
    assert planted.found_in(done.stdout + done.stderr) == []


def test_no_file_of_the_project_has_a_secret(planted: Planted) -> None:
    """Definitions for bake, metadata of buildx, records, the image's layout, `.env`, and a report of a mistake."""
    root = planted.project.root
    reports = list((root.parent / "tmp").glob("builder-*.traceback"))
    assert len(reports) == 1
    files = [path for path in (*root.rglob("*"), *(root.parent / "tmp").rglob("*")) if path.is_file()]
    assert {"parts.bake.json", "image.bake.metadata.json", "index.json", ".env"} <= {path.name for path in files}
    assert {path.name: found for path in files if (found := planted.found_in(path.read_bytes()))} == {}


def test_neither_configuration_nor_history_has_a_secret(planted: Planted, engine: Engine) -> None:
    digest = planted.image["digest"]
    history = planted.project.docker("history", "--no-trunc", digest).ok().stdout
    assert "unpack the server" not in history  # the stages are not in the image: their files alone are
    assert planted.found_in(history) == []
    assert planted.found_in(json.dumps(engine.image(digest))) == []
    layout = planted.layout
    assert planted.found_in(layout.content + layout.path(layout.manifest["config"]["digest"]).read_bytes()) == []


def test_no_statement_has_a_secret(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", planted.project.environment["DOCKER_CONFIG"])
    reference = Reference.parse(planted.reference)
    assert reference.digest
    registry = Registry.connect(reference)
    registry.log_in()
    statements = []
    for each in registry.referrers(reference.digest):
        manifest = registry.manifest(str(each.digest))
        assert manifest
        assert planted.found_in(manifest.content) == []
        (layer,) = manifest.document["layers"]
        envelope = json.loads(b"".join(registry.blob(Digest(layer["digest"]))))
        statements.append(base64.b64decode(envelope["payload"]))
    assert len({json.loads(each)["predicateType"] for each in statements}) == 3
    assert [planted.found_in(each) for each in statements] == [[], [], []]


# ---- what is in the layers -----------------------------------------------------------------------------------------


CONTROL = b"triton_python_backend_stub"
"""Is in the layer of the server: the search finds what there is."""
_STAGES = [b"/root-fs/", b"/src/plugin/"]
"""Folders of the build, for what is elsewhere in the image. The history has lines of the Dockerfile that name them."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file, a folder or a link in a layer."""

    name: str
    """Its path from the root of the image."""
    member: tarfile.TarInfo
    found: frozenset[bytes]
    """What of the searched for is in its content."""


@dataclass(frozen=True)
class Content:
    """The files of all layers, the lowest first."""

    layers: list[list[Entry]]
    of_debian: int
    """How many layers are Debian's."""
    packaged: frozenset[str]
    """Files that Debian's packages brought, which are as they were packaged."""

    @property
    def added(self) -> list[Entry]:
        """What lies on Debian."""
        return [entry for layer in self.layers[self.of_debian :] for entry in layer]

    @property
    def everything(self) -> list[Entry]:
        return [entry for layer in self.layers for entry in layer]

    def with_any(self, needles: list[bytes], entries: list[Entry]) -> dict[str, set[bytes]]:
        return {entry.name: hits for entry in entries if (hits := set(entry.found) & set(needles))}


@pytest.fixture(scope="module")
def content(planted: Planted, engine: Engine, debian: str) -> Content:
    """The planted image, unpacked and searched."""
    needles = [CONTROL, *planted.needles, *_machine(planted), *_STAGES, *_today()]
    digest = planted.image["digest"]
    manifest = planted.layout.manifest
    of_debian = len(json.loads(base_image(engine, debian, PLATFORM).manifest)["layers"])
    found: dict[str, list[Entry]] = {}
    packaged: set[str] = set()
    # In the order in which the engine sends them.
    with SavedBlobs(engine, digest) as saved:
        for layer in sorted(manifest["layers"], key=lambda each: str(each["digest"])):
            with (
                saved.blob(Digest(layer["digest"])) as blob,
                tarfile.open(fileobj=unpacked(blob, layer["mediaType"]), mode="r|") as archive,
            ):
                found[layer["digest"]] = [_entry(archive, member, needles, packaged) for member in archive]
    return Content([found[layer["digest"]] for layer in manifest["layers"]], of_debian, frozenset(packaged))


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, needles: list[bytes], packaged: set[str]) -> Entry:
    name = "/" + member.name.removeprefix("./").strip("/")
    stream = archive.extractfile(member) if member.isreg() else None
    if stream is None:
        return Entry(name, member, frozenset())
    if name.startswith("/var/lib/dpkg/info/"):
        packaged.add(name)
    if name.startswith("/var/lib/dpkg/info/") and name.endswith(".list"):
        text = stream.read()
        # As packages name them; below /usr is where they are.
        lines = text.decode().splitlines()
        packaged.update(re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", line) for line in lines)
        return Entry(name, member, frozenset(needle for needle in needles if needle in text))
    found: set[bytes] = set()
    before = b""
    while block := stream.read(_BLOCK):
        searched = before + block
        found.update(needle for needle in needles if needle in searched)
        before = searched[-max(map(len, needles)) :]
    return Entry(name, member, frozenset(found))


def _machine(planted: Planted) -> list[bytes]:
    """Its name, where that is more than a word, and its folders."""
    folders = [str(ROOT), str(planted.project.root), str(planted.project.root.parent)]
    names = [name for name in (socket.gethostname(), "buildkitsandbox") if len(name) > 5]
    return [each.encode() for each in (*folders, *names)]


def _today() -> list[bytes]:
    """The present day, as programs and compilers (__DATE__) write it."""
    now = time.time()
    formats = ("%Y-%m-%d", "%d %b %Y", "%b %e %Y")
    return list({time.strftime(form, when(now)).encode() for form in formats for when in (time.gmtime, time.localtime)})


def test_no_layer_has_a_secret(planted: Planted, content: Content) -> None:
    assert content.with_any([CONTROL], content.added)
    assert content.with_any(planted.needles, content.everything) == {}


def test_nothing_tells_which_machine_built_it(planted: Planted, content: Content) -> None:
    assert content.with_any([*_machine(planted), *_STAGES], content.everything) == {}
    layout = planted.layout
    told = layout.content + layout.path(layout.manifest["config"]["digest"]).read_bytes()
    assert [each for each in _machine(planted) if each in told] == []


def test_nothing_tells_the_day_of_the_build(content: Content) -> None:
    """Of layers that the cache had, the day is an earlier one; that of the server was made a moment ago."""
    added = [entry for entry in content.added if entry.name not in content.packaged]
    assert content.with_any(_today(), added) == {}


def test_files_have_no_time_but_that_of_their_package(content: Content) -> None:
    packages, *others = content.layers[content.of_debian :]
    month = time.time() - 30 * 24 * 3600
    assert [each.name for each in packages if each.member.mtime > month and each.name not in content.packaged] == []
    assert sum(map(len, others)) > 1000
    assert {each.name: each.member.mtime for layer in others for each in layer if each.member.mtime != 0} == {}


def test_nothing_runs_with_other_rights_than_those_of_its_user(content: Content) -> None:
    special = stat.S_ISUID | stat.S_ISGID
    assert [entry.name for entry in content.added if entry.member.mode & special] == []
    assert [
        entry.name for entry in content.everything if "SCHILY.xattr.security.capability" in entry.member.pax_headers
    ] == []


def test_nobody_else_can_write_what_we_add(content: Content) -> None:
    """The server's user has its home, and nothing of what it runs."""
    writable = [entry.name for entry in content.added if entry.member.mode & stat.S_IWOTH and not entry.member.issym()]
    assert writable == []
    owned = {entry.name for entry in content.added if entry.member.uid != 0}
    assert {name for name in owned if not name.startswith("/home/triton-server")} == set()


def test_no_file_is_one_that_holds_secrets(content: Content) -> None:
    suspicious = re.compile(
        r"/(\.git|\.netrc|\.ssh|\.aws|\.docker|\.env|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|pip\.conf|auth\.json|builder\.toml"
        r"|cosign\.key)(/|$)"
    )
    assert [entry.name for entry in content.everything if suspicious.search(entry.name)] == []
    assert [entry.name for entry in content.added if entry.name.startswith("/run/")] == []


# ---- what a server lets strangers do -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Serving:
    """A server, as `smoke` and compose start it, and what asks it."""

    server: ContainerServer
    endpoint: Endpoint

    def inside(self, script: str) -> list[str]:
        done: Any = self.server.container.exec_run(["sh", "-c", script])
        return bytes(done.output).decode().splitlines()

    def post(self, path: str, document: dict[str, Any], **headers: str) -> requests.Response:
        return requests.post(f"http://{self.endpoint.http}/v2/{path}", json=document, headers=headers, timeout=30)

    @contextlib.contextmanager
    def clients(self) -> Iterator[tuple[Any, Any]]:
        http = tritonclient.http.InferenceServerClient(self.endpoint.http)
        grpc = tritonclient.grpc.InferenceServerClient(self.endpoint.grpc)
        with contextlib.closing(http), contextlib.closing(grpc):
            yield http, grpc

    def memory(self) -> str:
        """The name of the memory through which the Python backend talks to a model's process."""
        return next(name for name in self.inside("ls /dev/shm") if "_backend_shm_region_" in name)


@pytest.fixture(scope="module")
def hardened(image: dict[str, Any], engine: Engine) -> Iterator[Serving]:
    with serving(engine, image["digest"]) as server:
        wait_until_ready(server.endpoint(), server, timeout=60, where=image["digest"])
        yield Serving(server, server.endpoint())


def test_it_serves_without_a_right(hardened: Serving) -> None:
    """Of the model's process, too: user 1000, no capability to be had, a root that nobody can write."""
    script = """for each in /proc/[0-9]*; do
        read -r name <$each/comm
        echo $name $(grep -E '^(Uid|Gid|CapEff|CapBnd|NoNewPrivs):' $each/status | cut -f 2)
    done"""
    processes = {line.split()[0]: line.split()[1:] for line in hardened.inside(script)}
    assert {"tritonserver", "triton_python_b"} <= processes.keys()
    for name in ("tritonserver", "triton_python_b"):
        assert processes[name] == ["1000", "1000", "0" * 16, "0" * 16, "1"]
    assert "Read-only file system" in " ".join(hardened.inside("touch /models/x /opt/tritonserver/x 2>&1"))
    _answers(hardened.endpoint.http, hardened.endpoint.grpc)


def test_nobody_can_load_or_unload_a_model(hardened: Serving) -> None:
    with hardened.clients() as clients:
        for client in clients:
            for refused in (client.load_model, client.unload_model):
                with pytest.raises(InferenceServerException, match="not allowed"):
                    refused("mydali")
            assert client.is_model_ready("mydali")


def test_nobody_can_reach_the_memory_of_a_models_process(hardened: Serving) -> None:
    """Its name is no secret: a request that does not fit gets an error with it."""
    name = hardened.memory()
    with hardened.clients() as clients:
        for client in clients:
            with pytest.raises(InferenceServerException, match="restricted"):
                client.register_system_shared_memory("mine", f"/{name}", 1024)
            with pytest.raises(InferenceServerException, match="restricted"):
                client.register_cuda_shared_memory("mine", base64.b64encode(bytes(64)), 0, 1024)
            with pytest.raises(InferenceServerException, match="restricted"):
                client.unregister_system_shared_memory()
    _answers(hardened.endpoint.http, hardened.endpoint.grpc)


def test_nobody_can_change_the_log_or_the_trace(hardened: Serving) -> None:
    with hardened.clients() as clients:
        for client in clients:
            with pytest.raises(InferenceServerException, match="restricted"):
                client.update_log_settings({"log_info": False})
            with pytest.raises(InferenceServerException, match="restricted"):
                client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})


def test_what_is_closed_opens_with_a_key_of_ones_own(image: dict[str, Any], engine: Engine) -> None:
    """And without ours: this is what the tests above would find if the entrypoint closed nothing."""
    command = [*engine.image(image["digest"])["Config"]["Cmd"], "--http-restricted-api=shared-memory:key=open"]
    with _running(engine, image["digest"], command=command) as found:
        region = {"key": f"/{found.memory()}", "offset": 0, "byte_size": 1024}
        assert found.post("systemsharedmemory/region/mine/register", region).status_code == 403
        assert found.post("systemsharedmemory/region/mine/register", region, key="wrong").status_code == 403
        assert found.post("systemsharedmemory/region/mine/register", region, key="open").status_code == 200
        assert found.post("logging", {"log_info": False}, key="open").status_code == 403


@contextlib.contextmanager
def _running(engine: Engine, image: str, **options: Any) -> Iterator[Serving]:
    ports = {"8000/tcp": ("127.0.0.1", None), "8001/tcp": ("127.0.0.1", None)}
    with engine.running(image, ports=ports, **options) as container:
        server = ContainerServer(container)
        wait_until_ready(server.endpoint(), server, timeout=60, where=image)
        yield Serving(server, server.endpoint())


def test_what_is_ours_needs_no_shell(image: dict[str, Any], engine: Engine) -> None:
    """Entrypoint, server and health check do without; Triton's Python backend starts each model through bash."""
    hidden = [docker.types.Mount(path, "/dev/null", type="bind", read_only=True) for path in SHELLS]
    config = engine.image(image["digest"])["Config"]
    check = config["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    with _running(
        engine,
        image["digest"],
        command=["tritonserver", "--model-repository=/models", "--model-control-mode=explicit"],
        mounts=hidden,
    ) as found:
        container = found.server.container
        assert container.exec_run(["bash", "-c", "true"]).exit_code != 0
        assert container.exec_run(["sh", "-c", "true"]).exit_code != 0
        assert container.exec_run(check[1:]).exit_code == 0
    with engine.running(image["digest"], mounts=hidden[:1]) as container:
        deadline = time.monotonic() + 60
        while b"Failed to run python backend stub" not in container.logs():
            assert time.monotonic() < deadline
            time.sleep(0.2)
