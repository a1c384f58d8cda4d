# ruff: noqa: E501  (a table of messages)
from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder import catalogue
from builder.symptoms import _SYMPTOMS, Diagnosis, blames_a_plugin, diagnose, health, last_run, plain

LIBRARY = "/models/libcustomcopy.so"
LOADING = "failed to load 'm' version 1: "


def said(message: str, level: str = "E") -> list[str]:
    """As Triton writes a message today: quoted, with what is in it escaped."""
    escaped = message.replace('"', r"\"").replace("\n", r"\n")
    return [
        'I1122 11:57:18.1 1 x.cc:1] "loading: m:1"',
        f'{level}1122 11:57:21.1 1 y.cc:48] "{escaped}"',
        "error: done",
    ]


def said_before(message: str) -> list[str]:
    """As older releases do: as it is, over several lines."""
    return ["I1122 11:57:18.1 1 x.cc:1] loading: m:1", *f"E1122 11:57:21.1 1 y.cc:48] {message}".split("\n")]


# In the words of glibc, DALI, NVIDIA's backend, the embedded backend and Triton.
CASES = [
    # Libraries.
    (f"Failed to load plugin libs: Failed to load library {LIBRARY}: {LIBRARY}: cannot open shared object file: No such "
     "file or directory", "plugin-missing", LIBRARY),
    (f"dali: Failed to load plugin library '{LIBRARY}' (--backend-config=dali,plugin_libs): {LIBRARY}: cannot open shared "
     "object file: No such file or directory. Remedy: the server must have it", "plugin-missing", LIBRARY),
    ("Failed to load plugin libs: Failed to load library /models/a.so;/models/b.so: /models/a.so;/models/b.so: cannot open "
     "shared object file: No such file or directory", "plugin-separator", "/models/a.so;/models/b.so"),
    (f"dali: model 'm': parameter plugin_libs names '{LIBRARY}', which the server does not load. Remedy: start it with",
     "plugin-unlisted", LIBRARY),
    (f"Failed to load plugin libs: Failed to load library {LIBRARY}: {LIBRARY}: file too short", "library-not-elf",
     "file too short"),
    (f"Failed to load library {LIBRARY}: {LIBRARY}: invalid ELF header", "library-not-elf", LIBRARY),
    (f"Failed to load library {LIBRARY}: {LIBRARY}: cannot read file data: Is a directory", "library-not-elf", LIBRARY),
    (f"Failed to load library {LIBRARY}: {LIBRARY}: wrong ELF class: ELFCLASS32", "library-wrong-machine", LIBRARY),
    (f"Failed to load library {LIBRARY}: libdali.so: version `DALI_1.53.0' not found (required by {LIBRARY})",
     "library-abi-dali", "1.53.0"),
    (f"libdali.so: version 'DALI_2.1.0' not found (required by {LIBRARY})", "library-abi-dali", "2.1.0"),
    (f"Failed to load library {LIBRARY}: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by "
     f"{LIBRARY})", "library-abi-glibc", "GLIBC_2.38"),
    (f"libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by {LIBRARY})", "library-abi-glibcxx", LIBRARY),
    (f"Failed to load library {LIBRARY}: {LIBRARY}: undefined symbol: _ZN4dali3fooE", "library-undefined-symbol",
     "_ZN4dali3fooE"),
    (f"tritonserver: symbol lookup error: {LIBRARY}: undefined symbol: helper", "library-undefined-symbol", "helper"),
    (f"Failed to load library {LIBRARY}: libopencv_core.so.4.5: cannot open shared object file: No such file",
     "library-unloadable", "libopencv_core.so.4.5"),
    (f"Failed to load plugin library '{LIBRARY}' (parameter plugin_libs): the stars are not right", "library-unloadable",
     LIBRARY),
    (f"Failed to load library {LIBRARY}: {LIBRARY}: cannot open shared object file: Permission denied",
     "library-unloadable", LIBRARY),
    ('Operator "CustomCopy" already registered for ::dali::CPU', "operator-duplicate", "CustomCopy"),
    (f"Failed to load plugin library '{LIBRARY}' (--backend-config=dali,plugin_libs): loading it ends the process with "
     'SIGABRT: Operator "CustomCopy" already registered for ::dali::CPU. Remedy: rename', "operator-duplicate", "CustomCopy"),
    ("CUDA error: no kernel image is available for execution on the device", "library-gpu-architecture-missing", ""),
    # Models, in DALI's words.
    ('No schema found for operator "CustomCopy"', "operator-unregistered", "CustomCopy"),
    ("Schema for operator 'CustomCopy' not registered", "operator-unregistered", "CustomCopy"),
    ("Configuration file contains config for OTHER but such input is not present in the pipeline.", "input-name-mismatch",
     "OTHER"),
    ('Missing data_type config for "__CustomCopy_0"', "config-missing", ""),
    ('Missing config for "IN" input.', "input-missing", "IN"),
    ("Missing config for IN: the pipeline has this input, but the configuration file has not.", "input-missing", "IN"),
    ('Mismatch of data_type config for "IN".\nData type defined in config: TYPE_FP32\nData type defined in pipeline: '
     "TYPE_UINT8", "input-dtype-mismatch", "TYPE_FP32"),
    ('Mismatch of data_type config for "IN". Data type defined in config: TYPE_FP32. Data type defined in pipeline: '
     "TYPE_UINT8", "input-dtype-mismatch", "TYPE_UINT8"),
    ('Mismatch in number of dimensions for "IN"\nNumber of dimensions defined in config: 2\nNumber of dimensions defined '
     "in pipeline: 3", "input-rank-mismatch", "2 dims for IN, the pipeline 3"),
    ("The number of outputs specified in the DALI pipeline and the configuration file do not match.\nModel config "
     "outputs: 2\nPipeline outputs: 1", "output-count-mismatch", "2 outputs, the pipeline returns 1"),
    ("Number of outputs does not match: 2 in the configuration file (A, B), 1 in the pipeline (A)",
     "output-count-mismatch", "2 outputs, the pipeline returns 1"),
    ("Failed to load model file. The program looked in the following locations: /models/m/1/model.dali, "
     "/models/m/1/dali.py. Please make sure", "model-file-invalid", ""),
    ("Failed to load model file: it is not a serialized DALI pipeline", "model-file-invalid", ""),
    ("Failed to load model file. The program looked in the following locations: /models/m/1/model.dali (No such file or "
     "directory). It must hold", "pipeline-missing", "/models/m/1/model.dali"),
    ("parameter num_threads must be a whole number from 1 on, got 'many'", "num-threads-invalid", ""),
    ('DALI has no TYPE_STRING: choose another data_type for "IN"', "dtype-unsupported", "TYPE_STRING"),
    ("Cannot add a GPU operator. Pipeline 'device_id' should not be equal to `CPU_ONLY_DEVICE_ID`.",
     "gpu-operator-on-cpu-target", ""),
    # GPUs and memory.
    ("instance group m_0 of model m has kind KIND_GPU but no GPUs are available", "kind-gpu-on-cpu-target", ""),
    ("instance group m_0 of model m specifies invalid or unsupported gpu id 0. GPUs with at least", "gpu-missing", ""),
    ("CUDA error: cudaErrorInsufficientDriver", "gpu-missing", ""),
    ('Assert on "cuInitChecked()" failed', "gpu-missing", ""),
    ("CUDA runtime API error cudaErrorMemoryAllocation (2): out of memory", "gpu-memory-exhausted", ""),
    ("Can't allocate 4489633333248 bytes on device 0.", "gpu-memory-exhausted", ""),
    ("Failed to increase the shared memory pool size for key 'x': No space left on device", "shared-memory-too-small", ""),
    ("Unable to initialize shared memory key 'triton_dali_backend_shm_region_1' to requested size (1048576 bytes). If you "
     "are running Triton inside docker, use '--shm-size' flag to control the shared memory region size.",
     "shared-memory-too-small", ""),
    ("terminate called after throwing an instance of 'std::bad_alloc'", "memory-exhausted", ""),
    # Triton.
    ("Poll failed for model directory 'm': unexpected directory name 'm' for model 'other', directory name must equal",
     "config-name-mismatch", "other"),
    ("Poll failed for model directory 'm': Invalid model name: Could not determine backend for model 'm' with no backend "
     "in model configuration.", "backend-missing", ""),
    (LOADING + "Invalid argument: unable to find backend library for backend 'dalli', try specifying runtime",
     "backend-unknown", "dalli"),
    (LOADING + "Invalid argument: unable to find 'libtriton_onnxruntime.so' for model 'm', searched: /models/m/1",
     "backend-unknown", "onnxruntime"),
    ("Poll failed for model directory 'm': unexpected platform type 'tensorrt' for m", "backend-unknown", "tensorrt"),
    (LOADING + "Not found: unable to load shared library: libcudart.so.12: cannot open it", "backend-unloadable",
     "libcudart.so.12"),
    ("failed to load model 'm': at least one version must be available under the version policy of model 'm'",
     "version-missing", ""),
    (LOADING + "Invalid argument: model output 'OUT' must specify 'dims' for m", "dims-empty", "OUT"),
    (LOADING + "Invalid argument: model input must specify 'dims' for m", "dims-empty", "a tensor"),
    (LOADING + "Invalid argument: model input IN must specify 'dims' for m", "dims-empty", "for IN"),
    (LOADING + "Invalid argument: model input must specify 'data_type' for m", "dtype-unsupported", "a tensor"),
    (LOADING + "Invalid argument: model output 'OUT' must specify 'data_type' for m", "dtype-unsupported", "OUT"),
    (LOADING + "Invalid argument: dynamic batching preferred size must be <= max batch size for m",
     "preferred-batch-size-invalid", "<= max batch size"),
    (LOADING + "Invalid argument: dynamic batching preferred size must be positive for m",
     "preferred-batch-size-invalid", "positive"),
    (LOADING + "Not found: unable to load shared library: libcudart.so.13: cannot open shared object file: No such file or "
     "directory", "backend-unloadable", "libcudart.so.13"),
    ("failed to read text proto from /models/m/config.pbtxt", "config-invalid", ""),
    ("Invalid argument: ensemble e contains models that are not available or ambiguous: mydalli", "ensemble-step-missing",
     "mydalli"),
    ("Invalid argument: in ensemble e, ensemble tensor I: inconsistent data type: TYPE_FP32 is inferred from model e while "
     "TYPE_UINT8 is inferred from model m", "ensemble-dtype-mismatch", "TYPE_FP32 for e and TYPE_UINT8 for m"),
    ("Invalid argument: in ensemble e, ensemble tensor I: inconsistent shape: [-1,3] is inferred from model e while "
     "[-1,4] is inferred from model m", "ensemble-shape-mismatch", "[-1,4] for m"),
    ("Invalid argument: ensemble e allows maximum batch size 256, but it contains model m which only allows maximum batch "
     "size to be 8", "ensemble-batch-size", "its step m only of 8"),
    ("Invalid argument: in ensemble e, ensemble tensor I is mapping to non-existing input IN in model m",
     "ensemble-tensor-unknown", "non-existing input IN in model m"),
    ("Invalid argument: in ensemble e, ensemble tensor O is mapped from non-existing output OUT in model m",
     "ensemble-tensor-unknown", "OUT"),
    ("Invalid argument: in ensemble e, input IN in model m is not mapped to any ensemble tensors",
     "ensemble-input-unmapped", "IN"),
    ("circular dependency between ensembles: a -> b -> a", "ensemble-loop", "a -> b -> a"),
    ("failed to poll model 'nope': model not found in any model repository.", "model-unknown", "nope"),
    (LOADING + "Internal: ModuleNotFoundError: No module named 'torch'\n\nAt:\n  /models/m/1/model.py(1): <module>\n",
     "python-module-missing", "torch"),
    (LOADING + "Internal: ValueError: no such label file\n\nAt:\n  /models/m/1/model.py(4): initialize\n",
     "python-model-failed", "ValueError: no such label file"),
    ("failed to start HTTP service: Unavailable - Socket '0.0.0.0:8000' already in use ", "port-in-use", "0.0.0.0:8000"),
    ("Poll failed for model directory 'm': failed to open text file for read /models/m/config.pbtxt: Permission denied",
     "repository-unreadable", "/models/m/config.pbtxt"),
    (LOADING + "Internal: Stub process 'm_0_0' is not healthy.", "stub-died", ""),
]  # fmt: skip


@pytest.mark.parametrize(("message", "code", "told"), CASES, ids=[f"{case[1]}-{i}" for i, case in enumerate(CASES)])
@pytest.mark.parametrize("write", [said, said_before])
def test_a_message_is_told_by_what_it_means(write: object, message: str, code: str, told: str) -> None:
    assert callable(write)
    (found,) = diagnose(write(message))
    assert found.code == code
    assert told in found.what
    assert found.remedy
    assert found.evidence
    assert "{" not in found.what + found.remedy


BARE = [
    ("error: creating server: Internal - failed to stat file /nowhere", "repository-missing", "/nowhere"),
    ("error: creating server: Invalid argument - --model-repository must be specified", "repository-missing", ""),
    ("error: creating server: Internal - failed to stat file /models/: No such file or directory", "repository-missing",
     "at /models/"),
    ("error: creating server: Internal - failed to stat file s3://bucket/models.", "repository-missing",
     "at s3://bucket/models"),
    ("exec /opt/nvidia/nvidia_entrypoint.sh: exec format error", "image-wrong-machine", ""),
    ("exec user process caused: exec format error", "image-wrong-machine", ""),
    ("/opt/nvidia/nvidia_entrypoint.sh: 12: exec: tritonserver: not found", "server-missing", ""),
    ('OCI runtime create failed: exec: "tritonserver": executable file not found in $PATH: unknown', "server-missing", ""),
    ('docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].', "machine",
     "GPU"),
    ("Signal (4) received.\n 0# 0x1 in tritonserver", "server-crashed", "SIGILL"),
    ("tritonserver: unrecognized option '--nosuchflag'", "server-argument-invalid", "--nosuchflag"),
    ("--backend-config option format is '<backend name>,<setting>=<value>'. Got dali,plugin_libs=",
     "server-argument-invalid", "plugin_libs="),
    ("ERROR: This container was built for NVIDIA Driver Release 580.95 or later, but\n"
     "       version 535.183.01 was detected and compatibility mode is UNAVAILABLE.", "driver-too-old", "535.183.01"),
    ("ERROR: This container was built for NVIDIA Driver Release 580.95 or later,\n"
     "       but version 535.183.01 was detected and compatibility mode is UNAVAILABLE.", "driver-too-old", "580.95"),
    ("I1122 14:15:07.926493 13 pb_stub.cc:2105]  Failed to preinitialize Python stub: Python model file not found in "
     "'/m/p/1/model.py'", "python-model-missing", ""),
    ("terminate called after throwing an instance of 'std::runtime_error'\n"
     "  what():  Operator \"CustomCopy\" already registered for ::dali::CPU.\nSignal (6) received.\n"
     " 0# 0x00005A51911D67F2 in tritonserver", "operator-duplicate", "CustomCopy"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "told"), BARE, ids=[case[1] for case in BARE])
def test_what_is_written_without_a_time_counts_too(text: str, code: str, told: str) -> None:
    (found,) = diagnose(text.split("\n"))
    assert (found.code, told in found.what) == (code, True)


def test_every_symptom_has_a_story() -> None:
    assert {symptom.code for symptom in _SYMPTOMS} - set(catalogue.codes()) == set()


def test_every_symptom_is_met_by_a_test() -> None:
    met = {code for _, code, _ in CASES + BARE} | {"server-crashed", "dims-invalid"}
    assert {symptom.code for symptom in _SYMPTOMS} - met == set()


HEALTHY = [
    'W1122 14:09:32.919553 1 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory pool '
    'will not be available: CUDA driver version is insufficient for CUDA runtime version"',
    'E1122 14:09:32.920253 1 server.cc:241] "CudaDriverHelper has not been initialized."',
    "Error: Failed to initialize NVML",
    'W1122 14:09:35.479490 1 metrics.cc:798] "DCGM unable to start: DCGM initialization error"',
    '| dali    | /opt/tritonserver/backends/dali/model.py | {"cmdline":{"plugin_libs":"/models/libcustomcopy.so"}} |',
    "I1122 14:09:35.477634 1 model_lifecycle.cc:839] \"successfully loaded 'mydali'\"",
    'I1122 14:09:35.482667 1 grpc_server.cc:2558] "Started GRPCInferenceService at 0.0.0.0:8001"',
]


def test_a_server_without_a_gpu_complains_and_is_well() -> None:
    assert diagnose(HEALTHY) == []
    assert health(HEALTHY).ready
    assert health(HEALTHY).models == ("mydali",)
    assert not health(HEALTHY).stopped
    assert health([*HEALTHY, "Signal (15) received."]).stopped
    assert not health(HEALTHY[:5]).ready


WARNING = 'W1122 14:09:33.0 1 model.cc:1] "CUDA driver version is insufficient for CUDA runtime version"'


def test_a_warning_of_a_server_that_serves_is_no_cause() -> None:
    assert diagnose([*HEALTHY, WARNING]) == []
    # It may be the cause where the server does not become ready, and an error is one even then.
    assert [each.code for each in diagnose([*HEALTHY[:5], WARNING])] == ["gpu-missing"]
    assert [each.code for each in diagnose([*HEALTHY, "E" + WARNING[1:]])] == ["gpu-missing"]


@pytest.mark.parametrize(
    ("lines", "begins", "complains"),
    [
        (HEALTHY, True, False),
        (HEALTHY[5:], False, False),
        (HEALTHY[2:4], False, True),  # no line of a server that is well
        ([*HEALTHY[5:], "Traceback (most recent call last):"], False, True),
        ([*HEALTHY[5:], "error: creating server: who knows"], False, True),
        ([*HEALTHY[5:], 'E1122 14:09:32.9 1 x.cc:1] "who knows"'], False, True),
        ([*HEALTHY[5:], HEALTHY[1]], False, False),
        (["the dog ate it"], False, True),
        ([], False, True),
    ],
)
def test_a_log_may_lack_its_beginning(lines: list[str], begins: bool, complains: bool) -> None:
    found = health(lines)
    assert (found.begins, found.complains) == (begins, complains)


@pytest.mark.parametrize("lines", [[], [""], ['I1122 11:57:18.1 1 server.cc:305] "all is well"', "something else"]])
def test_an_unknown_log_means_nothing(lines: list[str]) -> None:
    assert diagnose(lines) == []


def test_what_is_only_information_is_nobodys_fault() -> None:
    assert diagnose(said("plugin_libs: Failed to load library /x.so", level="I")) == []


CAUSE = f"Failed to load plugin libs: Failed to load library {LIBRARY}: {LIBRARY}: file too short"
CONSEQUENCE = LOADING + 'Internal: No schema found for operator "CustomCopy"'


def test_a_cause_counts_and_its_consequence_does_not() -> None:
    for lines in (said(CAUSE) + said(CONSEQUENCE), said(CONSEQUENCE) + said(CAUSE)):
        (found,) = diagnose(lines)
        assert found.code == "library-not-elf"
        assert CAUSE in found.evidence[0]


def test_an_ensemble_waits_for_a_model_that_fails_and_not_for_another() -> None:
    step = "Invalid argument: ensemble e contains models that are not available or ambiguous: m"
    broken = LOADING + "Internal: parameter num_threads must be a whole number from 1 on, got 'x'"
    assert [each.code for each in diagnose(said(broken) + said(step))] == ["num-threads-invalid"]
    other = broken.replace("'m'", "'elsewhere'")
    codes = [each.code for each in diagnose(said(other) + said(step))]
    assert codes == ["num-threads-invalid", "ensemble-step-missing"]


def test_every_cause_is_told_once_for_each_model_in_the_order_of_the_log() -> None:
    first = LOADING + "Invalid argument: model output 'OUT' must specify 'dims' for m"
    second = "failed to load 'n' version 1: Internal: Failed to load model file. The program looked"
    found = diagnose(said(first) + said(second) + said(first))
    assert [(each.code, each.model) for each in found] == [("dims-empty", "m"), ("model-file-invalid", "n")]


def test_the_same_error_with_and_without_its_model_is_one() -> None:
    message = (
        "TritonModelException: Number of outputs does not match: 2 in the configuration file (A, B), 1 in the pipeline"
    )
    (found,) = diagnose(said(f"ERROR: Failed to create instance: {message}") + said(f"{LOADING}Internal: {message}"))
    assert found.model == "m"


def test_a_file_that_cannot_be_read_is_named_with_the_line() -> None:
    lines = [
        "[libprotobuf ERROR /tmp/text_format.cc:337] Error parsing text-format inference.ModelConfig: 3:16: Expected "
        '":", found "=".',
        "E1122 14:30:19.363432 1 model_repository_manager.cc:1460] \"Poll failed for model directory 'm': failed to read "
        'text proto from /models/m/config.pbtxt"',
    ]
    (found,) = diagnose(lines)
    assert (found.code, found.model) == ("config-invalid", "m")
    assert found.what.endswith('Expected ":", found "="')
    assert "3:16 of /models/m/config.pbtxt" in found.remedy


TRACE = [
    "Signal (11) received.",
    " 0# 0x0000559C929FD52D in tritonserver",
    " 1# 0x00007FB7E7924050 in /lib/x86_64-linux-gnu/libc.so.6",
    " 2# 0x00007FB7E796DF16 in /models/libcustomcopy.so",
    " 3# TRITONBACKEND_ModelInstanceExecute in /opt/tritonserver/backends/dali/libtriton_dali.so",
]


def test_a_crash_names_the_library_at_the_top_of_its_trace() -> None:
    (found,) = diagnose([*HEALTHY, *TRACE])
    assert (found.code, found.what) == ("server-crashed", f"the server crashed with SIGSEGV in {LIBRARY}")
    (found,) = diagnose(TRACE[:3])
    assert found.what == "the server crashed with SIGSEGV"


def test_an_exit_status_tells_something_where_the_log_does_not() -> None:
    def told(**ended: object) -> list[str]:
        return [each.code for each in diagnose(HEALTHY, **ended)]  # type: ignore[arg-type]

    assert told(status=137) == ["server-killed"]
    assert told(status=137, out_of_memory=True) == ["memory-exhausted"]
    assert told(status=139) == ["server-crashed"]
    assert told(status=1) == told(status=0) == told() == []
    assert [each.code for each in diagnose(said(CAUSE), status=137)] == ["library-not-elf"]


def test_memory_explains_why_a_process_of_python_died() -> None:
    stub = said(LOADING + "Internal: Stub process 'm_0' is not healthy.")
    assert [each.code for each in diagnose(stub, status=1, out_of_memory=True)] == ["memory-exhausted"]
    assert [each.code for each in diagnose(stub, status=1)] == ["stub-died"]


def test_the_last_start_counts() -> None:
    assert diagnose([HEALTHY[0], *said(CAUSE), *HEALTHY]) == []
    assert [each.code for each in diagnose([*HEALTHY, HEALTHY[0], *said(CAUSE)])] == ["library-not-elf"]
    banner = ["== Triton Inference Server ==", "ERROR: This container was built", HEALTHY[0]]
    assert last_run([*banner, "x", *banner, "y"]) == [*banner, "y"]
    assert last_run(["before", HEALTHY[0], "x"]) == ["before", HEALTHY[0], "x"]


@pytest.mark.parametrize(
    "shipped",
    [
        "\x1b[31m{}\x1b[0m\r\n",
        "triton-1  | {}",
        "2026-11-22T14:09:35.523935123Z {}",
        "triton-1  | 2026-11-22T14:09:35Z {}",
        "\x1b]0;title\x07{}",
    ],
)
def test_what_others_wrap_around_a_line_is_taken_off(shipped: str) -> None:
    line = said(CAUSE)[1]
    assert plain([shipped.format(line)]) == [line]
    (found,) = diagnose([shipped.format(each) for each in said(CAUSE)])
    assert found.evidence == (line,)


def test_the_other_format_of_times_is_known() -> None:
    line = f'2026-11-22T14:09:35Z {{}} 1 y.cc:48] "{CAUSE}"'
    assert [each.code for each in diagnose([line.format("E")])] == ["library-not-elf"]
    assert diagnose([line.format("I")]) == []


def test_no_password_gets_into_the_evidence() -> None:
    (found,) = diagnose(said(f"{CAUSE} from https://ann:secret@example.com/x"))
    assert "secret" not in str(found)


def test_a_large_log_is_read_in_seconds() -> None:
    noise = [
        f'E1122 14:10:59.1 1 x.cc:1] "request {number} failed to please: {number:0>150}"' for number in range(25_000)
    ]
    began = time.monotonic()
    assert [each.code for each in diagnose(noise + said(CAUSE))] == ["library-not-elf"]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "line", ["a" * 100_000, "Failed to load library " * 5_000, "\x1b[" * 50_000, "version `" * 9_000]
)
def test_no_line_takes_long(line: str) -> None:
    began = time.monotonic()
    diagnose([line] * 3)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("line", "blames"),
    [
        (CAUSE, True),
        (f"Failed to load plugin library '{LIBRARY}'", True),
        ('No schema found for operator "X"', True),
        ("Schema for operator 'X' not registered", True),
        (HEALTHY[4], False),
        ("error: creating server: Internal - failed to load all models", False),
    ],
)
def test_a_plugin_is_blamed_by_the_line_that_does(line: str, blames: bool) -> None:
    assert blames_a_plugin(line) is blames


@given(
    st.lists(
        st.one_of(
            st.text(max_size=60),
            st.builds(lambda case, noise: said(case[0] + noise)[1], st.sampled_from(CASES), st.text(max_size=9)),
            st.sampled_from(
                [
                    *HEALTHY,
                    *TRACE,
                    "[libprotobuf ERROR x] Error parsing text-format: 1:2: {0} {x}",
                    "Signal (8) received",
                ]
            ),
        ),
        max_size=12,
    )
)
@settings(max_examples=150, deadline=None)
def test_no_log_is_too_odd(lines: list[str]) -> None:
    for found in diagnose(lines, status=139):
        assert found.code in catalogue.codes()
        assert found.what
        assert found.remedy
    health(lines)


def test_a_diagnosis_as_json_has_all_that_a_user_is_told() -> None:
    assert Diagnosis("port-in-use", "w", "r", ("e",), "m").as_json() == {
        "code": "port-in-use",
        "what": "w",
        "remedy": "r",
        "evidence": ["e"],
        "model": "m",
    }
