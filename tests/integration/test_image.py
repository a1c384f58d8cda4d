"""What is in the image, and that every way of building leads to it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from elftools.elf.elffile import ELFFile

from builder.docker.engine import Engine
from builder.docker.secrets import from_machine
from builder.docker.server import ContainerServer
from builder.triton import wait_until_ready

from .conftest import Project

PLUGIN = "/models/libcustomcopy.so"


def secrets() -> list[str]:
    """What plain docker needs where TLS is inspected, as the README says it."""
    return [f"--secret={secret}" for secret in from_machine().secrets if secret.startswith("id=ca,")]


def _in_image(engine: Engine, image: str, script: str, **options: Any) -> str:
    """What a shell script prints in the image."""
    output = engine.client.containers.run(image, ["sh", "-c", script], remove=True, **options)
    return bytes(output).decode()


def test_build_prints_one_document_with_digest_and_layers(built: dict[str, Any], engine: Engine) -> None:
    (image,) = built["images"]
    assert image["target"] == "embedded"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"])
    described = engine.image(image["reference"])
    assert described["Id"] == image["digest"]
    assert [layer["digest"] for layer in image["layers"]] == described["RootFS"]["Layers"]
    assert all(layer["bytes"] > 0 for layer in image["layers"])
    assert image["bytes"] > 0
    assert built["seconds"] > 0


def test_the_image_holds_the_model_and_the_plugin(image: dict[str, Any], engine: Engine) -> None:
    files = _in_image(engine, image["digest"], "find /models -type f | sort; id -u; id -un").splitlines()
    assert files == [
        PLUGIN,
        "/models/mydali/1/dali.py",
        "/models/mydali/1/model.dali",
        "/models/mydali/config.pbtxt",
        "1000",
        "triton-server",
    ]


def test_the_image_says_where_it_comes_from(image: dict[str, Any], engine: Engine, shipped: Project) -> None:
    config = engine.image(image["digest"])["Config"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.created"].endswith("Z")
    assert labels["org.opencontainers.image.base.name"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", labels["org.opencontainers.image.base.digest"])
    assert labels["triton-dali-builder.dali.version"] == "1.53.0"
    assert labels["triton-dali-builder.triton.version"] == "24.10"
    digest = json.loads((shipped.root / ".builder/embedded/parts/facts.json").read_text())["plugins"][0]["sha256"]
    assert labels["triton-dali-builder.plugins"] == f"{PLUGIN}@sha256:{digest}"
    assert _in_image(engine, image["digest"], f"sha256sum {PLUGIN}").split()[0] == digest
    assert config["User"] == "1000:1000"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert f"--backend-config=dali,plugin_libs={PLUGIN}" in config["Cmd"]


def test_a_repository_gives_its_revision_to_the_image(project: Project, built: dict[str, Any], engine: Engine) -> None:
    git = ["git", "-C", str(project.root), "-c", "user.name=A", "-c", "user.email=a@example.com"]
    (project.root / ".gitignore").write_text(".builder/\n")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "https://user:secret@example.com/repo.git"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "all"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    project.edit("builder.toml", "under-test", "under-test-revised")
    image = project.builder("build", "--json").ok().document["images"][0]
    labels = engine.image(image["digest"])["Config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == f"{head}-dirty"
    assert labels["org.opencontainers.image.source"] == "https://example.com/repo.git"
    assert "secret" not in json.dumps(engine.image(image["digest"]))


def test_building_again_gives_the_same_digest(shipped: Project, image: dict[str, Any]) -> None:
    again = shipped.builder("build", "--json").ok().document["images"][0]
    assert again["digest"] == image["digest"]


def test_no_layer_keeps_the_networks_certificates(image: dict[str, Any], engine: Engine) -> None:
    found = _in_image(engine, image["digest"], "ls -A /run/secrets 2>/dev/null; find / -xdev -name pip.conf", user="0")
    assert found.strip() == ""


def test_the_library_has_no_path_of_the_build_and_hides_its_symbols(shipped: Project, built: dict[str, Any]) -> None:
    file = shipped.root / ".builder/embedded/parts/models/libcustomcopy.so"
    library = file.read_bytes()
    for path in (b"/src/plugin", b"/build/", b"/opt/toolchain", b"/opt/tritonserver"):
        assert path not in library
    with file.open("rb") as stream:
        elf = ELFFile(stream)
        assert elf.get_section_by_name(".symtab") is None  # stripped
        names = elf.get_section_by_name(".dynsym").iter_symbols()
        exported = [each.name for each in names if each["st_shndx"] != "SHN_UNDEF" and "CustomCopy" in each.name]
        assert exported == []
        needed = elf.get_section_by_name(".gnu.version_r").iter_versions()
        versions = {auxiliary.name for _, auxiliaries in needed for auxiliary in auxiliaries}
    assert {each for each in versions if each.startswith("DALI")} == {"DALI_1.53.0"}


def test_the_default_library_has_code_for_gpus(shipped: Project, built: dict[str, Any]) -> None:
    with (shipped.root / ".builder/embedded/parts/models/libcustomcopy.so").open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".nv_fatbin")
        assert section is not None
        assert section.data_size > 10_000


def test_a_gpu_build_without_nvcc_is_refused(project: Project, built: dict[str, Any]) -> None:
    """Rather than giving, without a word, an image that will fail on its first GPU."""
    project.edit("Dockerfile", "CUDACXX=/opt/toolchain/nvidia/cu13/bin/nvcc", "CUDACXX=/nowhere/nvcc")
    error = project.builder("build", "--json").failed("plugin-does-not-compile", 4)
    assert "nvcc" in " ".join(error["detail"])


def _answers(http: str, grpc: str) -> None:
    """A plain tritonclient's view: batches go in and come back, over both protocols."""
    batch = np.random.default_rng(1).integers(0, 256, (5, 1000), np.uint8)
    for module, address in ((tritonclient.http, http), (tritonclient.grpc, grpc)):
        tensor = module.InferInput("DALI_INPUT_0", list(batch.shape), "UINT8")
        tensor.set_data_from_numpy(batch)
        client = module.InferenceServerClient(address)
        assert np.array_equal(client.infer("mydali", [tensor]).as_numpy("DALI_OUTPUT_0"), batch)
        client.close()


def _serves(engine: Engine, image: str) -> None:
    """`docker run IMAGE` with no arguments but the ports."""
    ports = {"8000/tcp": ("127.0.0.1", None), "8001/tcp": ("127.0.0.1", None)}
    with engine.running(image, ports=ports) as container:
        server = ContainerServer(container)
        endpoint = server.endpoint()
        wait_until_ready(endpoint, server, timeout=60, where=image)
        _answers(endpoint.http, endpoint.grpc)


def test_docker_run_without_arguments_serves_the_model(image: dict[str, Any], engine: Engine) -> None:
    _serves(engine, image["digest"])


def test_plain_docker_build_gives_an_image_that_serves(
    shipped: Project, built: dict[str, Any], debian: str, engine: Engine
) -> None:
    shipped.docker("build", f"--build-arg=DEBIAN_IMAGE={debian}", *secrets(), "--tag=under-test:by-hand", ".").ok()
    _serves(engine, "under-test:by-hand")


def test_the_bake_definition_works_without_the_builder(shipped: Project, built: dict[str, Any]) -> None:
    shipped.environment.setdefault("TRITON_DALI_BUILDER_PIP_CONF", "")
    shipped.docker("buildx", "bake", "--file=.builder/parts.bake.json").ok()


def test_compose_builds_and_serves_by_itself(project: Project, built: dict[str, Any], debian: str) -> None:
    project.environment.update(
        DEBIAN_IMAGE=debian,
        IMAGE="under-test:by-compose",
        COMPOSE_PROJECT_NAME="by-compose",
        HTTP_PORT="0",
        GRPC_PORT="0",
        METRICS_PORT="0",
    )
    try:
        project.docker("compose", "up", "--detach", "--build", "--wait").ok()
        ports = {
            port: project.docker("compose", "port", "triton", port).ok().stdout.strip()
            for port in ("8000", "8001", "8002")
        }
        assert all(address.startswith("127.0.0.1:") for address in ports.values())
        _answers(ports["8000"], ports["8001"])
    finally:
        project.docker("compose", "down", "--timeout=10").ok()


def test_the_operator_in_the_image_copies_everything(image: dict[str, Any], engine: Engine) -> None:
    """Every data type, ranks 0 to 5, empty samples, ragged batches and layouts, byte for byte."""
    script = Path(__file__).with_name("copy_everything.py").read_text()
    output = engine.client.containers.run(
        image["digest"],
        ["python3", "-c", script],
        remove=True,
        environment={"PYTHONPATH": "/opt/tritonserver/backends/dali/wheel/dali"},
    )
    assert b"copied" in output


@pytest.mark.parametrize("target", ["embedded-dali2"])
def test_another_dali_is_a_target_and_nothing_else_changes(project: Project, target: str) -> None:
    image = project.builder("build", "--target", target, "--json").ok().document["images"][0]
    document = project.builder("smoke", "--target", target, "--json").ok().document
    assert document["passed"]
    assert document["images"][0]["digest"] == image["digest"]
    assert b"DALI_2.1.1" in (project.root / f".builder/{target}/parts/models/libcustomcopy.so").read_bytes()


def test_any_image_in_nvidias_layout_is_a_base_and_nothing_else_changes(
    project: Project, built: dict[str, Any], debian: str, engine: Engine
) -> None:
    """Stands for NVIDIA's image: a Triton base from elsewhere, of which the project knows the name alone."""
    base = "under-test/tritonserver:24.10-py3"
    arguments = [f"--build-arg=DEBIAN_IMAGE={debian}", "--target=embedded", f"--tag={base}"]
    project.docker(
        "build", *arguments, *secrets(), "--output=type=image,compression=zstd,oci-mediatypes=true", "."
    ).ok()
    project.edit("builder.toml", "nvcr.io/nvidia/tritonserver:26.06-py3", base)
    done = project.builder("build", "--target=ngc", "--json").ok()
    assert "release-differs" in done.stderr  # this one's DALI is not that of 24.10
    image = done.document["images"][0]
    labels = engine.image(image["digest"])["Config"]["Labels"]
    assert labels["org.opencontainers.image.base.name"] == base
    assert labels["org.opencontainers.image.base.digest"] == engine.image(base)["Id"]
    assert project.builder("smoke", "--target=ngc", "--json").ok().document["passed"]


def test_the_plugin_compiles_against_dali_2_0_without_a_change(project: Project, debian: str) -> None:
    arguments = [f"--build-arg=DEBIAN_IMAGE={debian}", "--build-arg=DALI_VERSION=2.0.0", "--target=artifacts"]
    project.docker("build", *arguments, *secrets(), f"--output=type=local,dest={project.root}/out", ".").ok()
    assert b"DALI_2.0.0" in (project.root / "out/models/libcustomcopy.so").read_bytes()


@pytest.mark.parametrize("setting", ["OFF", "AUTO"])
def test_without_nvcc_there_is_a_library_for_the_cpu_alone(
    project: Project, built: dict[str, Any], setting: str
) -> None:
    project.edit("builder.toml", 'dali = "1.53.0"', f'dali = "1.53.0"\ncuda = "{setting}"')
    project.edit("Dockerfile", "CUDACXX=/opt/toolchain/nvidia/cu13/bin/nvcc", "CUDACXX=/nowhere/nvcc")
    project.edit("builder.toml", "under-test", "under-test-cpu-only")
    done = project.builder("build").ok()
    library = (project.root / ".builder/embedded/parts/models/libcustomcopy.so").read_bytes()
    assert b".nv_fatbin" not in library
    assert "libcustomcopy.so: CustomCopy (cpu), compiled against" in done.stderr


_COPY_WITHOUT_A_KERNEL = """
template <>
void CustomCopy<::dali::GPUBackend>::RunImpl(::dali::Workspace &ws) {
  const auto &input = ws.Input<::dali::GPUBackend>(0);
  auto &output = ws.Output<::dali::GPUBackend>(0);
  for (int i = 0; i < input.num_samples(); i++) {
    const auto size = input.shape().tensor_size(i) * input.type_info().size();
    CUDA_CALL(cudaMemcpyAsync(output.raw_mutable_tensor(i), input.raw_tensor(i), size, cudaMemcpyDefault, ws.stream()));
  }
}

"""


def test_an_operator_for_gpus_needs_no_kernel_of_its_own(project: Project, built: dict[str, Any]) -> None:
    """CMake links CUDA's runtime for what nvcc compiles, and here that is nothing."""
    operator = project.root / "plugin/custom_copy_gpu.cc"
    head, _, rest = operator.read_text().partition("template <>")
    operator.write_text(head + _COPY_WITHOUT_A_KERNEL + rest[rest.index("}  // namespace") :])
    project.edit("plugin/CMakeLists.txt", "custom_copy_gpu.cc custom_copy.cu)", "custom_copy_gpu.cc)")
    assert "libcustomcopy.so: CustomCopy (cpu, gpu), compiled against" in project.builder("build").ok().stderr


def test_bake_reads_the_dockerfile_as_it_was_written(shipped: Project, built: dict[str, Any]) -> None:
    """A definition's strings are templates to bake, and a Dockerfile has as many dollars and percents as it likes."""
    printed = shipped.docker("buildx", "bake", "--file=.builder/parts.bake.json", "--print").ok()
    targets = printed.document["target"]
    assert {"embedded", "embedded_base"} <= set(targets)
    for each in targets.values():
        assert each["dockerfile-inline"] == (shipped.root / "Dockerfile").read_text()
