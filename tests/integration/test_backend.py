"""The embedded backend answers as NVIDIA's does: each row of docs/backend.md, in a real server, with both DALIs.

The models are made by backend_cases.py.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker.types
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from docker.models.containers import Container
from tritonclient.utils import InferenceServerException

from builder.docker.engine import Engine
from builder.docker.server import ContainerServer
from builder.triton import Array, Tensors, wait_until_ready

from .conftest import REPOSITORY, ROOT, Project

CONTRACT = ROOT / "tests" / "projects" / "contract"
CUSTOM_COPY, TROUBLE = "/models/libcustomcopy.so", "/models/libtrouble.so"
BOTH = f"{CUSTOM_COPY}:{TROUBLE}"
DALI = {"embedded": "1.53.0", "embedded-dali2": "2.1.1"}
PROTOCOLS = {"http": tritonclient.http, "grpc": tritonclient.grpc}
BAD_REQUEST = {"http": "400", "grpc": "StatusCode.INVALID_ARGUMENT"}
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
THROWS, ABORTS, SLEEPS, CALLS = 1, 2, 3, 4
SEPARATELY = ("reload", "trouble_alone", *(f"churn_{number}" for number in range(10)))
"""Models that their own tests load."""
MIB = 1 << 20


@dataclass
class Server:
    """A running server, and a client for each protocol and thread."""

    container: Container
    refusals: dict[str, str] = field(default_factory=dict)
    """Why the models that could not be loaded could not, as the server's API says."""
    _local: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        self._endpoint = ContainerServer(self.container).endpoint()

    def client(self, protocol: str = "http") -> Any:
        if not hasattr(self._local, protocol):
            address = getattr(self._endpoint, protocol)
            options = {"network_timeout": 60.0} if protocol == "http" else {}
            setattr(self._local, protocol, PROTOCOLS[protocol].InferenceServerClient(address, **options))
        return getattr(self._local, protocol)

    def close(self) -> None:
        """Closes this thread's connections: a server that is told to stop waits for them."""
        for client in vars(self._local).values():
            client.close()
        vars(self._local).clear()

    def wait(self) -> None:
        wait_until_ready(self._endpoint, ContainerServer(self.container), timeout=60, where="the server")

    def log(self) -> str:
        return bytes(self.container.logs()).decode(errors="replace")

    def load(self, model: str) -> str:
        """Loads a model; gives why it cannot be, or nothing."""
        try:
            self.client().load_model(model)
        except InferenceServerException as error:
            return str(error)
        return ""

    def unload(self, model: str) -> None:
        """Unloads a model, and waits until its last process has gone."""
        self.client().unload_model(model)
        deadline = time.monotonic() + 30
        while any(each.get("state") in ("READY", "UNLOADING") for each in self.index(model)):
            assert time.monotonic() < deadline, self.index(model)
            time.sleep(0.02)

    def index(self, model: str) -> list[dict[str, str]]:
        return [each for each in self.client().get_model_repository_index() if each["name"] == model]

    def infer(
        self,
        model: str,
        inputs: Tensors,
        *,
        protocol: str = "http",
        version: str = "",
        wanted: Sequence[str] = (),
        timeout: float = 60,
    ) -> Tensors:
        module = PROTOCOLS[protocol]
        given = []
        for name, array in inputs.items():
            tensor = module.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
            tensor.set_data_from_numpy(array)
            given.append(tensor)
        outputs = [module.InferRequestedOutput(name) for name in wanted] or None
        limit = {"client_timeout": timeout} if protocol == "grpc" else {}
        result = self.client(protocol).infer(model, given, model_version=version, outputs=outputs, **limit)
        described = result.get_response()
        names = (
            [each["name"] for each in described["outputs"]]
            if protocol == "http"
            else [each.name for each in described.outputs]
        )
        return {name: result.as_numpy(name) for name in names}

    def copies(self, model: str, *arrays: Array) -> None:
        """The model gives back what it gets, over both protocols."""
        assert model not in self.refusals, self.refusals[model]
        for protocol in PROTOCOLS:
            for array in arrays:
                same(self.infer(model, {"IN": array}, protocol=protocol), OUT=array)

    def refuses(self, model: str, inputs: Tensors, *words: str) -> None:
        """400, over both protocols, and it goes on."""
        for protocol in PROTOCOLS:
            with pytest.raises(InferenceServerException) as failure:
                self.infer(model, inputs, protocol=protocol)
            assert failure.value.status() == BAD_REQUEST[protocol]
            for each in words:
                assert each in str(failure.value)
        assert self.client().is_server_live()

    def refused(self, model: str, *words: str) -> None:
        """The model cannot be loaded, and the reason has these words."""
        assert model in self.refusals, f"{model} was loaded"
        for each in words:
            assert each in self.refusals[model]
        assert all(each.get("state") != "READY" for each in self.index(model))

    def together(self, model: str, requests: Sequence[Tensors]) -> list[Tensors | InferenceServerException]:
        """The outcomes of requests that are sent all at once, in their order."""
        barrier = threading.Barrier(len(requests))

        def ask(inputs: Tensors, protocol: str) -> Tensors | InferenceServerException:
            self.client(protocol).is_server_live()  # so that the connection is there
            barrier.wait()
            try:
                return self.infer(model, inputs, protocol=protocol)
            except InferenceServerException as error:
                return error
            finally:
                self.close()

        with ThreadPoolExecutor(len(requests)) as pool:
            protocols = [list(PROTOCOLS)[index % 2] for index in range(len(requests))]
            return list(pool.map(ask, requests, protocols))

    def executions(self, model: str) -> int:
        (stats,) = self.client().get_inference_statistics(model)["model_stats"]
        return int(stats["execution_count"])

    def configuration(self, model: str) -> dict[str, Any]:
        return dict(self.client().get_model_config(model))

    def processes(self) -> dict[int, tuple[str, int]]:
        """The command and the resident KiB of each, by its number."""
        table = self.container.top(ps_args="-eo pid,rss,args")
        return {int(pid): (command, int(rss)) for pid, rss, command in table["Processes"]}

    def stubs(self, model: str) -> set[int]:
        """The processes that run a model."""
        return {pid for pid, (command, _) in self.processes().items() if f"/cases/{model}/" in command}


def same(outputs: Tensors, **expected: Array) -> None:
    assert set(outputs) == set(expected)
    for name, array in expected.items():
        assert outputs[name].dtype == array.dtype
        np.testing.assert_array_equal(outputs[name], array)


def random(*shape: int, first: int = 9) -> Array:
    """Random bytes; each sample begins with `first`."""
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if array.ndim > 1 and array.size:
        array[:, 0] = first
    return array


# ---- what the servers need -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contract:
    """An image for one version of DALI, and the models made with it."""

    target: str
    image: str
    libraries: Path
    """The folder that the image's plugins came from."""
    cases: Path
    engine: Engine

    @contextlib.contextmanager
    def server(
        self,
        plugins: str | Sequence[str] = BOTH,
        *arguments: str,
        repository: str = "/cases",
        environment: dict[str, str] | None = None,
        files: dict[Path, str] | None = None,
    ) -> Iterator[Server]:
        """A server that loads what it is asked to; `plugins` is the value of the flag, or of several."""
        flags = [
            f"--backend-config=dali,plugin_libs={each}" for each in ([plugins] if isinstance(plugins, str) else plugins)
        ]
        command = ["tritonserver", f"--model-repository={repository}", *flags, "--http-thread-count=16", *arguments]
        if repository == "/cases":
            command.append("--model-control-mode=explicit")
        mounts = [
            docker.types.Mount(inside, str(outside), type="bind", read_only=True)
            for outside, inside in {self.cases: "/cases", **(files or {})}.items()
        ]
        ports = {"8000/tcp": ("127.0.0.1", None), "8001/tcp": ("127.0.0.1", None)}
        options: dict[str, Any] = {"ports": ports, "mounts": mounts, "shm_size": "2g", "environment": environment}
        with self.engine.running(self.image, command=command, **options) as container:
            yield Server(container)

    def outcome(self, model: str, *options: Any, **more: Any) -> str:
        """What loading a model comes to, on a server of its own: why it cannot be, or nothing; it then answers."""
        with self.server(*options, **more) as server:
            server.wait()
            reason = server.load(model)
            if not reason:
                server.copies(model, random(2, 100))
            assert server.client().is_server_live()
            return reason


@pytest.fixture(scope="session")
def contract_project(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> tuple[Path, dict[str, str]]:
    """The project's folder, and its images by their targets."""
    root = tmp_path_factory.mktemp("contract") / "project"
    shutil.copytree(CONTRACT, root)
    for name in ("custom_copy.cc", "custom_copy.h"):
        shutil.copy2(ROOT / "plugin" / name, root / "plugin")
    project = Project(root)
    project.edit("builder.toml", "localhost:5000/contract", f"localhost:5000/{REPOSITORY}-contract")
    built = project.builder("build", "--target=all", "--json").ok().document
    return root, {image["target"]: image["digest"] for image in built["images"]}


@pytest.fixture(scope="module", params=list(DALI))
def contract(
    request: pytest.FixtureRequest,
    contract_project: tuple[Path, dict[str, str]],
    engine: Engine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Contract:
    root, images = contract_project
    image = images[request.param]
    cases = tmp_path_factory.mktemp(f"cases-{request.param}")
    cases.chmod(0o777)
    script = (Path(__file__).parent / "backend_cases.py").read_text()
    engine.client.containers.run(
        image,
        ["-c", script, "/cases"],
        entrypoint=["python3"],
        remove=True,
        mounts=[docker.types.Mount("/cases", str(cases), type="bind")],
    )
    libraries = root / ".builder" / request.param / "parts" / "models"
    return Contract(request.param, image, libraries, cases, engine)


@pytest.fixture(scope="module")
def server(contract: Contract) -> Iterator[Server]:
    """A server that was asked, over its API, to load every model."""
    with contract.server(BOTH, "--model-load-thread-count=16") as server:
        server.wait()
        names = [each["name"] for each in server.client().get_model_repository_index()]
        names = sorted({name for name in names if name not in SEPARATELY})
        with ThreadPoolExecutor(16) as pool:
            for name, reason in zip(names, pool.map(server.load, names), strict=True):
                if reason:
                    server.refusals[name] = reason
        yield server


# ---- plugins ---------------------------------------------------------------------------------------------------------

MISSING = 'No schema found for operator "CustomCopy"'
LIST = "--backend-config=dali,plugin_libs"


def test_plugins_of_the_server_s_flag_are_loaded(server: Server) -> None:
    server.copies("plain", random(3, 1000))


@pytest.mark.parametrize("environment", [{}, {"DALI_PRELOAD_PLUGINS": BOTH}], ids=["parameter", "preload"])
def test_plugins_named_anywhere_else_are_not_loaded(contract: Contract, environment: dict[str, str]) -> None:
    """Neither config.pbtxt's parameter plugin_libs nor DALI's own variable."""
    reason = contract.outcome("plugin_libs", [], environment=environment)
    assert MISSING in reason
    assert f"parameter plugin_libs names '{CUSTOM_COPY}', which the server does not load" in reason
    assert f"{LIST}={CUSTOM_COPY}" in reason


def test_the_parameter_plugin_libs_is_no_reason_to_fail(server: Server) -> None:
    server.copies("plugin_libs", random(1, 9))
    server.copies("plugin_libs_unlisted", random(1, 9))
    assert "parameter plugin_libs names '/nowhere/libother.so', which the server does not load" in server.log()


@pytest.mark.parametrize("separator", [";", ","])
def test_only_a_colon_separates_libraries(contract: Contract, separator: str) -> None:
    listed = f"{CUSTOM_COPY}{separator}{TROUBLE}"
    reason = contract.outcome("plain", listed)
    assert MISSING in reason
    assert f"'{listed}'" in reason
    assert "several are separated by ':'" in reason


def test_the_last_of_several_flags_counts(contract: Contract) -> None:
    assert contract.outcome("plain", [TROUBLE, CUSTOM_COPY]) == ""
    assert MISSING in contract.outcome("plain", [CUSTOM_COPY, TROUBLE])


def test_the_server_refuses_an_empty_value(contract: Contract) -> None:
    command = ["tritonserver", "--model-repository=/cases", f"{LIST}="]
    with contract.engine.running(contract.image, command=command) as container:
        assert container.wait(timeout=60)["StatusCode"] == 1
        assert "--backend-config option format is" in container.logs().decode()


def test_a_library_that_is_missing_is_logged_and_those_after_it_are_skipped(contract: Contract) -> None:
    bad = "/models/libnowhere.so"
    with contract.server(f"{bad}:{CUSTOM_COPY}") as server:
        server.wait()
        reason = server.load("plain")
        assert MISSING in reason
        assert f"Failed to load plugin library '{bad}'" in reason
        assert f"skipped after it: {CUSTOM_COPY}" in reason
        assert f"Failed to load plugin library '{bad}'" in server.log()
        assert server.load("invert") == ""  # needs no plugin
    assert contract.outcome("plain", f"{CUSTOM_COPY}:{bad}") == ""


def test_a_server_whose_model_lacks_its_operator_ends(contract: Contract) -> None:
    """Where models are loaded at its start, as in production."""
    with contract.server([], repository="/models") as server:
        assert server.container.wait(timeout=60)["StatusCode"] == 1
        assert MISSING in server.log()


def test_a_library_for_another_dali_is_not_loaded(
    contract: Contract, contract_project: tuple[Path, dict[str, str]]
) -> None:
    (other,) = set(DALI) - {contract.target}
    built = contract_project[0] / ".builder" / other / "parts" / "models" / "libcustomcopy.so"
    reason = contract.outcome("plain", CUSTOM_COPY, files={built: CUSTOM_COPY})
    assert MISSING in reason
    assert f"version `DALI_{DALI[other]}' not found" in reason
    assert f"this is {DALI[contract.target]}: build it against {DALI[contract.target]}" in reason


def renamed(contract: Contract, symbol: bytes, to: Path) -> Path:
    """The library of `Trouble`, asking the C library for something that there is not."""
    library = (contract.libraries / "libtrouble.so").read_bytes()
    assert library.count(symbol) == 1
    to.write_bytes(library.replace(symbol, symbol[:-1] + b"_"))
    to.chmod(0o755)
    return to


def test_an_undefined_function_is_found_when_it_is_called(contract: Contract, tmp_path: Path) -> None:
    library = renamed(contract, b"getloadavg", tmp_path / "libtrouble.so")
    with contract.server(BOTH, files={library: TROUBLE}) as server:
        server.wait()
        assert server.load("trouble_alone") == ""
        server.copies("trouble_alone", random(1, 5))
        with pytest.raises(InferenceServerException):
            server.infer("trouble_alone", {"IN": random(1, 5, first=CALLS)})
        assert server.client().is_server_live()


def test_an_undefined_variable_is_found_at_load(contract: Contract, tmp_path: Path) -> None:
    library = renamed(contract, b"program_invocation_name", tmp_path / "libtrouble.so")
    reason = contract.outcome("trouble_alone", BOTH, files={library: TROUBLE})
    assert 'No schema found for operator "Trouble"' in reason
    assert "undefined symbol: program_invocation_nam_" in reason


def test_an_operator_that_two_libraries_register_fails_the_model_and_not_the_server(contract: Contract) -> None:
    again = "/models/libagain.so"
    files = {contract.libraries / "libcustomcopy.so": again}
    reason = contract.outcome("plain", f"{CUSTOM_COPY}:{again}", files=files)
    assert 'Operator "CustomCopy" already registered' in reason
    assert f"Failed to load plugin library '{again}'" in reason


def test_the_same_library_twice_is_fine(contract: Contract) -> None:
    assert contract.outcome("plain", f"{CUSTOM_COPY}:{CUSTOM_COPY}") == ""


# ---- names, types and dims -------------------------------------------------------------------------------------------


def test_an_input_that_the_pipeline_has_not(server: Server) -> None:
    server.refused(
        "input_name",
        "Configuration file contains config for OTHER but such input is not present in the pipeline.",
        "'IN'",
    )


def test_an_input_that_the_configuration_has_not(server: Server) -> None:
    server.refused("input_missing", '"MORE"')


def test_outputs_go_by_position(server: Server) -> None:
    assert "output_name" not in server.refusals
    data = random(2, 10)
    for protocol in PROTOCOLS:
        same(server.infer("output_name", {"IN": data}, protocol=protocol), ANOTHER=data)
    server.refused("output_count", "Number of outputs does not match: 2 in the configuration file (OUT, MORE), 1 in")


def test_an_input_type_that_the_pipeline_declares_otherwise(server: Server) -> None:
    server.refused("input_dtype", 'Mismatch of data_type config for "IN"', "TYPE_FP32", "TYPE_UINT8")
    server.copies("input_dtype_undeclared", random(2, 10).astype(np.float32))


def test_a_number_of_dims_that_the_pipeline_declares_otherwise(server: Server) -> None:
    server.refused("input_ndim", 'Mismatch in number of dimensions for "IN"', "in config: 2", "in pipeline: 1")


def test_an_output_that_the_configuration_describes_wrongly_is_served_as_it_is(server: Server) -> None:
    server.copies("output_wrong", random(2, 10))


def test_an_output_that_the_pipeline_declares_otherwise(server: Server) -> None:
    server.refused("output_dtype_declared", 'Mismatch of data_type config for "OUT"', "TYPE_FP64", "TYPE_UINT8")
    server.refused("output_ndim_declared", 'Mismatch in number of dimensions for "OUT"', "in config: 2")


def test_empty_dims(server: Server) -> None:
    server.refused("dims_empty", "model output 'OUT' must specify 'dims'")


def test_a_request_of_another_type_or_of_other_dims(server: Server) -> None:
    server.refuses("plain", {"IN": random(2, 16).astype(np.int32)}, "data-type is 'INT32'", "'UINT8'")
    server.refuses("plain", {"IN": random(2, 4, 4)}, "unexpected shape for input 'IN'")
    server.refuses("dims_fixed", {"IN": random(2, 17)}, "unexpected shape for input 'IN'", "[-1,16]")
    server.refuses("plain", {}, "expected 1 inputs but got 0")
    server.copies("dims_fixed", random(2, 16))


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_the_batch_size_of_the_configuration_counts(server: Server) -> None:
    """The pipelines have 8, the last one 5."""
    server.copies("batch_smaller", random(2, 10))
    server.copies("batch_larger", random(64, 10))
    server.copies("batch_absent", random(5, 10))
    for model, limit in (("batch_smaller", 2), ("batch_larger", 64), ("batch_absent", 5)):
        server.refuses(
            model,
            {"IN": random(limit + 1, 10)},
            f"inference request batch-size must be <= {limit} for '{model}'",
        )


def test_without_batches_a_request_is_a_sample(server: Server) -> None:
    server.copies("unbatched", random(1), random(1000))
    server.copies("unbatched_matrix", random(4, 3), random(1, 3))
    assert "dynamic_batching" not in server.configuration("unbatched")
    requests = [{"IN": np.full(size, size, np.uint8)} for size in (3, 3, 5, 7)]
    for request, answer in zip(requests, server.together("unbatched", requests), strict=True):
        assert not isinstance(answer, InferenceServerException), answer
        same(answer, OUT=request["IN"])


def test_requests_of_one_shape_are_joined(server: Server) -> None:
    """Without a driver, where NVIDIA's backend fails."""
    before = server.executions("joined")
    requests = [{"IN": random(size, 500, first=10 + size)} for size in (1, 2, 1, 1)]
    for request, answer in zip(requests, server.together("joined", requests), strict=True):
        assert not isinstance(answer, InferenceServerException), answer
        same(answer, OUT=request["IN"])
    assert server.executions("joined") - before < len(requests)


@pytest.mark.parametrize(("model", "joined"), [("joined", False), ("joined_ragged", True)])
def test_requests_of_several_shapes_are_joined_where_that_is_allowed(server: Server, model: str, joined: bool) -> None:
    before = server.executions(model)
    requests = [{"IN": random(1, size, first=size % 250)} for size in (10, 200, 3, 70_000)]
    for request, answer in zip(requests, server.together(model, requests), strict=True):
        assert not isinstance(answer, InferenceServerException), answer
        same(answer, OUT=request["IN"])
    assert (server.executions(model) - before < len(requests)) == joined


def test_requests_without_bytes(server: Server) -> None:
    server.copies("plain", random(4, 0))
    server.refuses("plain", {"IN": random(0, 16)})


def test_a_request_of_no_samples_and_no_bytes_harms_nobody(server: Server) -> None:
    """Triton's Python backend drops an execution without a sample; with others' samples it is refused here."""
    assert "empty" not in server.refusals
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        server.infer("empty", {"IN": random(0, 0)}, protocol="grpc", timeout=1)
    server.copies("empty", random(2, 10))
    # Fewer than make a batch of the preferred size: all of them wait for more.
    answers = server.together("empty", [{"IN": random(size, 0)} for size in (0, 1, 1)])
    assert isinstance(answers[0], InferenceServerException)
    assert answers[0].status() == "400"
    assert "'IN' has shape [0]: a batch needs at least one sample" in str(answers[0])
    for answer in answers[1:]:
        assert not isinstance(answer, InferenceServerException), answer
        same(answer, OUT=random(1, 0))


# ---- auto-complete ---------------------------------------------------------------------------------------------------


def test_without_config_pbtxt_all_comes_from_the_pipeline(server: Server) -> None:
    """As if it had been written."""
    server.copies("complete.dali", random(5, 100))
    completed, written = server.configuration("complete.dali"), server.configuration("written")
    assert completed["max_batch_size"] == 5
    assert completed["input"][0]["allow_ragged_batch"] is True
    assert "dynamic_batching" in completed
    differing = {key for key in completed.keys() | written.keys() if completed.get(key) != written.get(key)}
    # Triton itself fills in the file's name; and it names instance groups after their model.
    assert differing == {"name", "instance_group", "default_model_filename"}
    assert completed["default_model_filename"] == "model.dali"
    for config in (completed, written):
        del config["instance_group"][0]["name"]
    assert completed["instance_group"] == written["instance_group"]


def test_without_config_pbtxt_the_folder_s_name_must_say_dali(server: Server) -> None:
    server.refused("complete", "failed to poll from model repository")


def test_without_config_pbtxt_the_pipeline_must_declare_its_types(server: Server) -> None:
    server.refused("undeclared.dali", 'Missing data_type config for "IN"')


def test_what_is_written_is_kept_and_the_rest_is_filled_in(server: Server) -> None:
    config = server.configuration("complete_partly")
    assert config["max_batch_size"] == 3
    (given,), (returned,) = config["input"], config["output"]
    assert (given["name"], given["data_type"], given["dims"]) == ("IN", "TYPE_UINT8", [-1])
    assert (returned["name"], returned["data_type"], returned["dims"]) == ("RENAMED", "TYPE_UINT8", [-1])
    data = random(3, 10)
    same(server.infer("complete_partly", {"IN": data}), RENAMED=data)


def test_a_scheduler_that_is_written_is_kept(server: Server) -> None:
    assert "dynamic_batching" in server.configuration("plain")
    batching = server.configuration("complete_scheduler")["dynamic_batching"]
    assert batching["max_queue_delay_microseconds"] == 50
    assert "dynamic_batching" not in server.configuration("complete_sequences")


def test_without_auto_complete_the_configuration_is_as_written(contract: Contract) -> None:
    with contract.server(BOTH, "--disable-auto-complete-config") as server:
        server.wait()
        assert server.load("plain") == ""
        assert "dynamic_batching" not in server.configuration("plain")
        server.copies("plain", random(2, 10))
        assert server.load("input_name") != ""


# ---- model files -----------------------------------------------------------------------------------------------------


def inverts(server: Server, model: str, version: str = "") -> None:
    assert model not in server.refusals, server.refusals[model]
    data = random(2, 10)
    for protocol in PROTOCOLS:
        same(server.infer(model, {"IN": data}, protocol=protocol, version=version), OUT=255 - data)


def test_a_source_is_serialized_by_the_server(server: Server) -> None:
    server.copies("autoserialize", random(2, 10))
    server.copies("autoserialize_no_config.dali", random(8, 10))


def test_a_source_must_load_its_plugin_itself(server: Server) -> None:
    server.refused("autoserialize_no_plugin", "dali.py", "has no attribute 'custom_copy'")


def test_a_good_model_file_wins_over_a_source(server: Server) -> None:
    server.copies("autoserialize_both", random(2, 10))
    inverts(server, "autoserialize_bad_file")


def test_the_name_of_the_model_file_is_the_configuration_s(server: Server) -> None:
    inverts(server, "file_name")
    inverts(server, "file_name_py")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("file_garbage", "not a serialized DALI pipeline"),
        ("file_truncated", "not a serialized DALI pipeline"),
        ("file_empty", "the file is empty"),
        ("file_missing", "no such file"),
        ("file_name_gone", "1/other.dali (no such file)"),
    ],
)
def test_a_model_file_that_is_none(server: Server, model: str, why: str) -> None:
    looked = f"Failed to load model file. The program looked in the following locations: /cases/{model}/1/"
    server.refused(model, looked, why, f"/cases/{model}/1/dali.py")


def test_an_operator_that_nothing_registers(server: Server) -> None:
    server.refused("unregistered", 'No schema found for operator "CustomKopy"', LIST)


def test_a_model_is_loaded_anew_when_its_file_has_changed(server: Server, contract: Contract) -> None:
    file = contract.cases / "reload" / "1" / "model.dali"
    before = file.read_bytes()
    assert server.load("reload") == ""
    server.copies("reload", random(2, 10))
    try:
        write(contract, file, (contract.cases / "invert" / "1" / "model.dali").read_bytes())
        assert server.load("reload") == ""
        inverts(server, "reload")
        write(contract, file, b"garbage")
        assert "Failed to load model file" in server.load("reload")
        inverts(server, "reload")  # what works goes on
    finally:
        write(contract, file, before)
    server.unload("reload")


def write(contract: Contract, file: Path, data: bytes) -> None:
    """In the place of a file that belongs to the image's user."""
    file.unlink()
    file.write_bytes(data)


# ---- parameters, instances, versions ---------------------------------------------------------------------------------


def test_num_threads(server: Server) -> None:
    server.copies("threads", random(8, 100_000))
    server.refused("threads_word", "num_threads must be a whole number from 1 on, got 'many'")
    server.refused("threads_none", "num_threads must be a whole number from 1 on, got '0'")


def test_split_along_outer_axis(server: Server) -> None:
    data = random(2, 6)
    for protocol in PROTOCOLS:
        answer = server.infer("split", {"IN": data}, protocol=protocol)
        same(answer, OUT=data.reshape(6, 2), WHOLE=data)


def test_split_along_outer_axis_of_joined_requests(server: Server) -> None:
    before = server.executions("split_joined")
    requests = [{"IN": random(batch, size, first=size)} for batch, size in ((1, 8), (2, 4), (1, 100))]
    for request, answer in zip(requests, server.together("split_joined", requests), strict=True):
        assert not isinstance(answer, InferenceServerException), answer
        same(answer, OUT=request["IN"].reshape(-1, 2), WHOLE=request["IN"])
    assert server.executions("split_joined") - before < len(requests)


def test_split_along_outer_axis_of_an_output_that_is_declared(server: Server) -> None:
    data = random(2, 6)
    same(server.infer("split_declared.dali", {"IN": data}), OUT=data.reshape(6, 2))
    assert server.configuration("split_declared.dali")["output"][0]["dims"] == [-1]


def test_two_instances_work_at_the_same_time(server: Server) -> None:
    assert "instances" not in server.refusals
    assert len(server.stubs("instances")) == 2
    began = time.monotonic()
    requests = [{"IN": random(1, size, first=SLEEPS)} for size in (10, 11)]
    for request, answer in zip(requests, server.together("instances", requests), strict=True):
        assert not isinstance(answer, InferenceServerException), answer
        same(answer, OUT=request["IN"])
    assert time.monotonic() - began < 1.8  # a second each


def test_an_instance_for_a_gpu_that_there_is_not(server: Server) -> None:
    server.refused("kind_gpu", "KIND_GPU but no GPUs are available")


def test_versions(server: Server) -> None:
    data = random(2, 10)
    same(server.infer("versions", {"IN": data}, version="1"), OUT=data)
    inverts(server, "versions", "3")
    inverts(server, "versions")  # the highest
    server.copies("versions_latest", data)
    server.copies("versions_specific", data)
    for model, version in (("versions_latest", "1"), ("versions_specific", "3"), ("versions", "2")):
        with pytest.raises(InferenceServerException):
            server.infer(model, {"IN": data}, version=version)


def test_models_come_and_go_a_hundred_times(contract: Contract) -> None:
    """Ten models with one plugin. No process stays, and the server does not grow."""
    names = [name for name in SEPARATELY if name.startswith("churn")]
    data = random(2, 10)
    with contract.server(BOTH, "--disable-auto-complete-config") as server:
        server.wait()

        def cycle(name: str, times: int) -> None:
            for _ in range(times):
                assert server.load(name) == ""
                same(server.infer(name, {"IN": data}), OUT=data)
                server.unload(name)

        def memory() -> int:
            (resident,) = [rss for command, rss in server.processes().values() if command.startswith("tritonserver")]
            return resident

        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(cycle, names, [2] * 10))
            before = memory()
            list(pool.map(cycle, names, [8] * 10))
        assert not any("triton_python_backend_stub" in command for command, _ in server.processes().values())
        assert memory() < before * 1.05


# ---- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (8, 1000, 3), (3, 0, 3)])
def test_every_type_comes_back_to_the_byte(server: Server, shape: tuple[int, ...]) -> None:
    assert "types" not in server.refusals
    numbers = np.random.default_rng(1)
    inputs = {}
    for name, datatype in DATATYPES.items():
        size = int(np.prod(shape))
        array = (
            numbers.integers(0, 2, size).astype(bool)
            if name == "bool"
            else np.frombuffer(numbers.bytes(size * np.dtype(name).itemsize), name)
        )
        inputs[f"IN_{datatype}"] = array.reshape(shape)
    for protocol in PROTOCOLS:
        outputs = server.infer("types", inputs, protocol=protocol)
        for name, array in inputs.items():
            returned = outputs[name.replace("IN_", "OUT_")]
            assert (returned.dtype, returned.shape) == (array.dtype, array.shape)
            assert returned.tobytes() == array.tobytes()  # whatever it is as a number


def test_samples_without_dims(server: Server) -> None:
    server.copies("scalar", random(4, 1), random(1, 1))


def test_several_inputs_and_outputs(server: Server) -> None:
    assert "several" not in server.refusals
    left, right = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(12, dtype=np.int32).reshape(3, 4) * 100
    for protocol in PROTOCOLS:
        answer = server.infer("several", {"LEFT": left, "RIGHT": right}, protocol=protocol)
        same(answer, SUM=left + right.astype(np.float32), COPY=right, TOTAL=left.sum(axis=1, keepdims=True))
        some = server.infer("several", {"LEFT": left, "RIGHT": right}, protocol=protocol, wanted=["COPY"])
        same(some, COPY=right)
    server.refuses("several", {"LEFT": left}, "expected 2 inputs but got 1")
    server.refuses("several", {"LEFT": left, "RIGHT": right[:2]}, "batch size")


def test_large_requests(server: Server) -> None:
    for protocol, size in (("http", 100 * MIB), ("grpc", 64 * MIB)):
        data = np.random.default_rng(2).integers(0, 256, (4, size // 4), np.uint8)
        answer = server.infer("large", {"IN": data}, protocol=protocol)
        assert np.array_equal(answer["OUT"], data)


# ---- operators that fail ---------------------------------------------------------------------------------------------


def test_an_operator_that_throws_fails_its_request_and_the_next_one_works(server: Server) -> None:
    server.copies("trouble", random(2, 10))
    for _ in range(3):
        server.refuses("trouble", {"IN": random(2, 10, first=THROWS)}, "Trouble was asked for.", "trouble")
        server.copies("trouble", random(2, 10))


def test_an_operator_that_throws_fails_every_request_of_its_execution(server: Server) -> None:
    before = server.executions("trouble")
    requests = [{"IN": random(2, 10, first=THROWS if index == 1 else 9)} for index in range(4)]
    answers = server.together("trouble", requests)
    assert all(isinstance(answer, InferenceServerException) for answer in answers)
    assert all("Trouble was asked for." in str(answer) for answer in answers)
    assert server.executions("trouble") == before + 1
    server.copies("trouble", random(2, 10))


def test_an_operator_that_crashes_takes_down_its_own_process(server: Server) -> None:
    """The server and other models go on; this one comes back when it is unloaded and loaded again.

    Triton's Python backend neither restarts the process nor sees the end of the unload.
    """
    assert server.load("trouble_alone") == ""
    server.copies("trouble_alone", random(1, 10))
    others = server.stubs("plain")
    for _ in range(2):  # the process is gone for the second one
        with pytest.raises(InferenceServerException, match="is not healthy"):
            server.infer("trouble_alone", {"IN": random(1, 10, first=ABORTS)})
    assert server.client().is_server_live()
    server.copies("plain", random(2, 10))
    assert server.stubs("plain") == others
    server.client().unload_model("trouble_alone")
    assert server.load("trouble_alone") == ""
    server.copies("trouble_alone", random(1, 10))


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_requests_in_flight_are_answered_when_the_server_is_told_to_stop(contract: Contract) -> None:
    with contract.server() as server:
        server.wait()
        assert server.load("instances") == ""
        requests = [{"IN": random(1, size, first=SLEEPS)} for size in (10, 11)]
        with ThreadPoolExecutor(1) as pool:
            answers: Future[list[Any]] = pool.submit(server.together, "instances", requests)
            time.sleep(0.5)
            server.close()
            began = time.monotonic()
            server.container.kill("SIGTERM")
            for request, answer in zip(requests, answers.result(), strict=True):
                assert not isinstance(answer, InferenceServerException), answer
                same(answer, OUT=request["IN"])
        assert server.container.wait(timeout=30)["StatusCode"] == 0
        assert time.monotonic() - began < 10
