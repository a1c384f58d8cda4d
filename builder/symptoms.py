"""What a server's log says about why it failed: one table from Triton's, DALI's and the loader's words to causes.

The words are those of triton-inference-server/core (model_repository_manager.cc, model_lifecycle.cc, backend_model.cc,
ensemble_utils.cc), server (main.cc, http_server.cc), python_backend (pb_stub.cc, shm_manager.cc), dali_backend
(dali_backend.cc, config_tools.cc, dali_model.h), DALI (pipeline.cc, the registry of operators), glibc's loader, and the
entrypoint of NVIDIA's containers; most of them were seen in a real tritonserver 2.51.0 with DALI 1.53 and 2.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from builder.process import redact

EVIDENCE_LINES = 3
_LONGEST_LINE = 4000
_LONGEST_RECORD = 40
_KILLED = 137
_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}


@dataclass(frozen=True)
class Diagnosis:
    """One cause of a failure."""

    code: str
    what: str
    remedy: str
    evidence: tuple[str, ...]
    """The lines of the log that show it; none where an exit status is all there is."""
    model: str = ""

    def as_json(self) -> dict[str, object]:
        return {
            "code": self.code,
            "what": self.what,
            "remedy": self.remedy,
            "evidence": list(self.evidence),
            "model": self.model,
        }


@dataclass(frozen=True)
class _Symptom:
    """A pattern, and what it means; `{name}` stands for the pattern's group of that name."""

    code: str
    pattern: re.Pattern[str]
    what: str
    remedy: str
    follows: tuple[str, ...] = ()
    """Codes, or beginnings of codes, of which it is but a consequence; '' for every other."""
    otherwise: bool = False
    """Only for lines that no other symptom knows."""


def _symptom(code: str, pattern: str, what: str, remedy: str, *follows: str, otherwise: bool = False) -> _Symptom:
    return _Symptom(code, re.compile(pattern), what, remedy, follows, otherwise)


_REBUILD = "build the image again: the plugin is then compiled against its DALI"
_LIBRARIES = ("library-", "plugin-", "operator-duplicate")
_ANYTHING = ("",)
_LOAD = r"[Ff]ail\w* to load (?:plugin libs: Failed to load library|plugin library|library|plugin) '?"
_STEPS = r"in ensemble (?P<model>[^\s,]+), "
# `\s` also takes what parts the lines of a message that Triton wrote as one: see _unescaped.
_SYMPTOMS: tuple[_Symptom, ...] = (
    # Libraries, in the words of glibc's loader.
    _symptom(
        "library-abi-dali",
        r"version [`']DALI_(?P<version>[\d.]+)' not found",
        "the plugin was compiled against DALI {version}, which is not the image's",
        _REBUILD,
    ),
    _symptom(
        "library-abi-glibcxx",
        r"version [`'](?P<version>(?:GLIBCXX|CXXABI)_[\d.]+)' not found(?: \(required by (?P<library>[^)\s]+))?",
        "{library} needs {version}, which the image's libstdc++ does not have",
        "compile it in the image's own toolchain, as `builder build` does, or choose a newer base",
    ),
    _symptom(
        "library-abi-glibc",
        r"version [`'](?P<version>GLIBC_[\d.]+)' not found(?: \(required by (?P<library>[^)\s]+))?",
        "{library} needs {version}, which the image's C library does not have",
        "compile it in the image's own toolchain, as `builder build` does, or choose a newer base",
    ),
    _symptom(
        "plugin-separator",
        _LOAD + r"(?P<library>[^\s:']*[;,][^\s:']*)",
        "the list of plugins is not separated by colons: the server takes {library} for one file",
        "separate the libraries with ':'",
    ),
    _symptom(
        "plugin-missing",
        _LOAD + r"(?P<library>[^\s:';,]+)'?[^\n\v]*?: (?P=library): cannot open shared object file(?!: Perm)",
        "the plugin {library} could not be loaded: the server has no such file",
        "name a library that the image has; one for another processor is passed over as if it were not there",
    ),
    _symptom(
        "plugin-unlisted",
        r"parameter plugin_libs names '(?P<library>[^']+)', which the server does not load",
        "a model asks for the plugin {library}, which the server was not told to load",
        "list it in --backend-config=dali,plugin_libs=, which `builder build` derives from `plugins` in builder.toml",
    ),
    _symptom(
        "library-not-elf",
        r"(?P<library>/[^\s:'\"]+): (?P<reason>file too short|invalid ELF header|cannot read file data|"
        r"ELF file's phentsize[^\n\v.]*|object file has no [^\n\v.]*|only ET_DYN and ET_EXEC can be loaded)",
        "the plugin {library} could not be loaded: it is no shared library ({reason})",
        "build the image again; see that nothing is mounted over the file",
    ),
    _symptom(
        "library-wrong-machine",
        r"(?P<library>/[^\s:'\"]+): (?:wrong ELF class|ELF file data encoding|ELF file's machine)",
        "the plugin {library} could not be loaded: it is for another processor",
        "compile it for the image's platform",
    ),
    _symptom(
        "library-undefined-symbol",
        r"(?P<library>/[^\s:'\"]+): undefined symbol: (?P<symbol>\w+)",
        "the plugin {library} needs the symbol {symbol}, which nothing in the server defines",
        "link the library that defines it, or compile against the image's own DALI; `c++filt` reads the name",
    ),
    _symptom(
        "operator-duplicate",
        r"Operator [\"'](?P<operator>\w+)[\"'] already registered",
        "two libraries register the operator {operator}",
        "remove one of them from the list of plugins, or rename the operator",
    ),
    _symptom(
        "library-unloadable",
        r"(?<!unable to load shared library)(?:: |^)(?P<needed>[^\s:'\"/]+\.so[\w.]*): cannot open shared object file",
        "a library needs {needed}, which the image does not have",
        "install what has it, or link it statically; `ldd` lists all that is missing",
    ),
    _symptom(
        "library-unloadable",
        r"[Ff]ail\w* to load (?:plugin libs|library|plugin)\b[^\n\v]*?(?P<library>/[^\s:'\",]+\.so)\b",
        "the plugin {library} could not be loaded",
        "see the loader's message; the library must be in the image and readable",
        otherwise=True,
    ),
    _symptom(
        "library-gpu-architecture-missing",
        r"no kernel image is available for execution|cudaErrorNoKernelImageForDevice|CUDA_ERROR_NO_BINARY_FOR_GPU",
        "an operator has no code for this GPU",
        "add the GPU's architecture to cuda_architectures in builder.toml, and build again",
    ),
    # DALI and its backends.
    _symptom(
        "operator-unregistered",
        r"(?:No schema found for operator|Schema for operator) [\"'](?P<operator>\w+)[\"']",
        "no loaded plugin registers the operator {operator}",
        "list its library in plugin_libs of --backend-config=dali,plugin_libs=, which `builder build` derives",
        *_LIBRARIES,
    ),
    _symptom(
        "input-name-mismatch",
        r"contains config for (?P<input>\S+) but such input is not present",
        "the pipeline has no external_source named {input}",
        "give the input in config.pbtxt and the external_source the same name",
    ),
    _symptom(
        "config-missing",
        r"Missing (?:(?P<field>data_type|dims) config for \"?(?P<tensor>__\w+)\"?|(?P<part>inputs|outputs) config|"
        r"max_batch_size field)",
        "the model's configuration is not complete, and its pipeline does not declare the rest",
        "write it with `builder config MODEL`; give the external_source a name, a dtype and an ndim",
    ),
    _symptom(
        "input-missing",
        r"Missing config for \"?(?P<input>[^\s\":]+)\"?(?: input|:)",
        "config.pbtxt has no input {input}, which the pipeline asks for",
        "add it; `builder config MODEL` writes the whole configuration",
    ),
    _symptom(
        "input-dtype-mismatch",
        r"Mismatch of data_type config for \"(?P<tensor>[^\"]+)\"\.?\s+Data type defined in config: (?P<config>\w+)\.?"
        r"\s+Data type defined in pipeline: (?P<pipeline>\w+)",
        "config.pbtxt has {config} for {tensor}, the pipeline {pipeline}",
        "write {pipeline} in config.pbtxt, or declare another dtype in the pipeline",
    ),
    _symptom(
        "input-dtype-mismatch",
        r"Mismatch of data_type config for \"(?P<tensor>[^\"]+)\"",
        "config.pbtxt and the pipeline disagree on the data type of {tensor}",
        "give both the same one",
        otherwise=True,
    ),
    _symptom(
        "input-rank-mismatch",
        r"Mismatch in number of dimensions for \"(?P<tensor>[^\"]+)\"\.?\s+Number of dimensions defined in config: "
        r"(?P<config>\d+)\.?\s+Number of dimensions defined in pipeline: (?P<pipeline>\d+)",
        "config.pbtxt has {config} dims for {tensor}, the pipeline {pipeline}",
        "give dims as many entries as the pipeline's ndim; the batch is none of them",
    ),
    _symptom(
        "input-rank-mismatch",
        r"Mismatch in number of dimensions(?: for \"(?P<tensor>[^\"]+)\")?",
        "config.pbtxt and the pipeline disagree on the number of dimensions of {tensor}",
        "give dims as many entries as the pipeline's ndim; the batch is none of them",
        otherwise=True,
    ),
    _symptom(
        "output-count-mismatch",
        r"[Nn]umber of outputs (?:specified in the DALI pipeline and the configuration\s+file do not match\.?\s+"
        r"Model config outputs: (?P<config>\d+)\s+Pipeline outputs: (?P<pipeline>\d+)|"
        r"does not match: (?P<config2>\d+) in the configuration file[^\n\v]*?, (?P<pipeline2>\d+) in the pipeline)",
        "config.pbtxt has {config}{config2} outputs, the pipeline returns {pipeline}{pipeline2}",
        "list as many outputs as the pipeline returns, in its order",
    ),
    _symptom(
        "pipeline-missing",
        r"Failed to load model file\.[^\n\v]*?locations: (?P<file>[^\s,]+) \(No such file",
        "a serialized pipeline is missing or damaged: there is no {file}",
        "add 1/dali.py and build the image again; or mend default_model_filename",
    ),
    _symptom(
        "model-file-invalid",
        r"Failed to load model file(?!\.[^\n\v]*?\(No such file)",
        "a serialized pipeline is missing or damaged",
        "build the image again; see whether the model's version folder has model.dali",
    ),
    _symptom(
        "num-threads-invalid",
        r"parameter num_threads must be a whole number[^\n\v]*?got '?(?P<value>[^'\n\v]*)|"
        r"[Ff]ailed to (?:parse|convert)[^\n\v]*num_threads",
        "the parameter num_threads is not a whole number from 1 on",
        "write a number, or leave the parameter out",
    ),
    _symptom(
        "dtype-unsupported",
        r"DALI has no (?P<type>TYPE_\w+): choose another data_type for \"(?P<tensor>[^\"]+)\"",
        "DALI has no {type}, which config.pbtxt has for {tensor}",
        "choose another data_type",
    ),
    _symptom(
        "gpu-operator-on-cpu-target",
        r"Cannot add a (?:GPU|Mixed|mixed|gpu) operator|should not be equal to\s+`?CPU_ONLY_DEVICE_ID",
        "the pipeline has an operator for the GPU, and the model runs on the CPU",
        "run with --gpus all, or use the operator for the CPU",
    ),
    # GPUs and memory.
    _symptom(
        "driver-too-old",
        r"built for NVIDIA Driver Release (?P<needed>[\d.]+) or later,\s+(?:but\s+)?version (?P<found>[\d.]+) was "
        r"detected",
        "the NVIDIA driver {found} is too old for this image, which needs {needed}",
        "update the driver of the host to {needed} or newer, or choose an older base",
    ),
    _symptom(
        "driver-too-old",
        r"cudaErrorUnsupportedPtxVersion|CUDA_ERROR_UNSUPPORTED_PTX_VERSION|compiled with an unsupported toolchain|"
        r"cudaErrorCompatNotSupportedOnDevice|forward compatibility was attempted on non supported HW",
        "the NVIDIA driver is too old for the code of an operator",
        "update the host's driver; code that this program compiles needs 580 or newer",
    ),
    _symptom(
        "kind-gpu-on-cpu-target",
        r"instance group \S+ of model (?P<model>\S+) has kind KIND_GPU but (?:no GPUs are available|specifies no GPUs)",
        "the model wants a GPU and there is none",
        "run with --gpus all, or set the model's instance_group to KIND_CPU",
    ),
    _symptom(
        "gpu-missing",
        r"instance group (?:\S+ of model (?P<model>\S+))?.*specifies invalid or unsupported gpu id|"
        r"cudaErrorInsufficientDriver|cudaErrorNoDevice|no CUDA-capable device|CUDA driver version is insufficient|"
        r"Assert on \"?cuInitChecked\(\)",
        "the model wants a GPU and there is none",
        "run with --gpus all, or set the model's instance_group to KIND_CPU",
        "driver-too-old",
        "kind-gpu-on-cpu-target",
    ),
    _symptom(
        "gpu-memory-exhausted",
        r"cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|CUDA out of memory|CUDA allocation failed|"
        r"Can't allocate \d+ bytes on device|CUDA error: out of memory",
        "the GPU has not enough memory",
        "use smaller batches or fewer instances; `nvidia-smi` shows who else uses the GPU",
    ),
    _symptom(
        "shared-memory-too-small",
        r"Failed to increase the shared memory pool size|Unable to initialize shared memory key|'--shm-size' flag|"
        r"No space left on device.*shm|/dev/shm\b[^\n\v]*(?:No space|too small|full)",
        "the container's shared memory is too small",
        "start the container with --shm-size=1g or more",
    ),
    _symptom(
        "memory-exhausted",
        r"std::bad_alloc|Out of memory: Killed process|oom-kill|Memory cgroup out of memory|\bMemoryError\b",
        "the server has not enough memory",
        "give the container more (MEMORY for compose, --memory for docker), or use smaller batches and fewer instances",
    ),
    # Models and their configurations, in Triton's words.
    _symptom(
        "config-name-mismatch",
        r"unexpected directory name '(?P<model>[^']+)' for model '(?P<name>[^']+)'",
        "config.pbtxt names the model {name}, its folder {model}",
        "give both the same name, or leave `name` out",
    ),
    _symptom(
        "backend-missing",
        r"Could not determine backend for model '(?P<model>[^']+)'|must specify (?:'platform' or )?'backend' for "
        r"'(?P<model2>[^']+)'",
        "a model has no config.pbtxt, or its config.pbtxt names no backend",
        'add backend: "dali"; `builder config MODEL` writes the whole file',
    ),
    _symptom(
        "backend-unknown",
        r"unable to find backend library for backend '(?P<backend>[^']*)'",
        "the image has no backend {backend}",
        "correct `backend` in config.pbtxt, or build on an image that has it",
    ),
    _symptom(
        "backend-unknown",
        r"unable to find 'libtriton_(?P<backend>[\w-]+)\.so'[^\n\v]*? for model '(?P<model>[^']+)'",
        "the image has no backend {backend}",
        "correct `backend` in config.pbtxt, or build on an image that has it",
    ),
    _symptom(
        "backend-unknown",
        r"unexpected platform type '?(?P<backend>[^\s']*)'? for (?P<model>[\w.-]+)",
        "Triton knows no platform {backend}",
        'write backend: "dali" in the place of `platform`',
    ),
    _symptom(
        "backend-unloadable",
        r"unable to load shared library: (?P<reason>[^\n\v\"]+)",
        "a backend could not be loaded: {reason}",
        "the base image does not fit: NVIDIA's backends work with the Triton release that they came with",
    ),
    _symptom(
        "version-missing",
        r"at least one version must be available under the version policy of model '(?P<model>[^']+)'",
        "the model has no version that the server may load",
        "add a folder named by a number, such as 1/, or mend version_policy",
    ),
    _symptom(
        "python-model-missing",
        r"Python model file not found in '(?P<file>[^']+)'|unable to find '[^']*libtriton_python\.so' or "
        r"'(?P<model>[^'/]+)/model\.py'",
        "a model of the python backend has no model.py",
        "add model.py to its version folder",
    ),
    _symptom(
        "dims-empty",
        r"model (?:in|out)put (?:'?(?P<tensor>[^\s']+)'? )?must specify 'dims'(?: for (?P<model>[\w.-]+))?",
        "config.pbtxt has no dims for {tensor}",
        "write them: -1 where any size will do, without the batch",
    ),
    _symptom(
        "dtype-unsupported",
        r"model (?:in|out)put (?:'?(?P<tensor>[^\s']+)'? )?must specify 'data_type'(?: for (?P<model>[\w.-]+))?",
        "config.pbtxt has no data_type for {tensor}",
        "write it, or declare it in the pipeline; `builder config MODEL` writes the whole configuration",
    ),
    _symptom(
        "preferred-batch-size-invalid",
        r"dynamic batching preferred size must be (?P<problem>positive|<= max batch size) for (?P<model>[\w.-]+)",
        "a preferred_batch_size of config.pbtxt is not what it must be: {problem}",
        "leave preferred_batch_size out, or name sizes from 1 to max_batch_size",
    ),
    _symptom(
        "dims-invalid",
        r"model (?:in|out)put '?(?P<tensor>[^\s']+)'? dimension must be integer >= 1, or -1",
        "config.pbtxt has a size in dims of {tensor} that is neither positive nor -1",
        "write -1 where any size will do",
    ),
    _symptom(
        "config-invalid",
        r"Error parsing text-format[^\n\v]*?(?P<place>\d+:\d+): (?P<reason>[^\n\v]+?)\.?(?:$|\nPoll failed for "
        r"model directory '(?P<model>[^']+)': failed to read text proto from (?P<file>\S+)|\n)",
        "a config.pbtxt cannot be read: {reason}",
        "mend line and column {place} of {file}",
    ),
    _symptom(
        "config-invalid",
        r"Text-format|failed to read text proto|Error parsing text-format",
        "a config.pbtxt cannot be read",
        "mend the line that is named",
        otherwise=True,
    ),
    _symptom(
        "ensemble-step-missing",
        r"ensemble (?P<model>\S+) contains models that are not available or ambiguous: (?P<steps>[^\n\v\"]+)",
        "the ensemble has a step for {steps}, which cannot be loaded or does not exist",
        "mend the step's model_name, or what keeps that model from loading",
    ),
    _symptom(
        "ensemble-dtype-mismatch",
        _STEPS + r"ensemble tensor (?P<tensor>[^\s:]+): inconsistent data type: (?P<one>\w+) is inferred from model "
        r"(?P<first>\S+) while (?P<other>\w+) is inferred from model (?P<second>[\w.-]+)",
        "the ensemble's tensor {tensor} is {one} for {first} and {other} for {second}",
        "give both the same data type",
    ),
    _symptom(
        "ensemble-shape-mismatch",
        _STEPS + r"ensemble tensor (?P<tensor>[^\s:]+): inconsistent shape: (?P<one>\S+) is inferred from model "
        r"(?P<first>\S+) while (?P<other>\S+) is inferred from model (?P<second>[\w.-]+)",
        "the ensemble's tensor {tensor} is {one} for {first} and {other} for {second}",
        "give both dims that agree; -1 agrees with any size, and a model that takes batches has one dimension more",
    ),
    _symptom(
        "ensemble-batch-size",
        r"ensemble (?P<model>\S+) allows maximum batch size (?P<most>\d+), but it contains model (?P<step>\S+) which "
        r"only allows maximum batch size to be (?P<less>\d+)",
        "the ensemble takes batches of {most}, its step {step} only of {less}",
        "lower the ensemble's max_batch_size to {less}, or raise the model's",
    ),
    _symptom(
        "ensemble-tensor-unknown",
        _STEPS + r"(?P<problem>ensemble tensor \S+ is mapp\w+ (?:to|from) non-existing \w+ \S+ in model [\w.-]+)",
        "the maps of an ensemble's step do not fit its model: {problem}",
        "the keys of input_map and output_map are the model's own names, the values the ensemble's",
    ),
    _symptom(
        "ensemble-input-unmapped",
        _STEPS + r"input (?P<tensor>\S+) in model (?P<step>\S+) is not mapped to any ensemble tensors",
        "the ensemble gives its step {step} nothing for the input {tensor}",
        "map it in input_map, or make the input optional",
    ),
    _symptom(
        "ensemble-loop",
        r"circular dependency between ensembles: (?P<path>[^\n\v\"]+)",
        "ensembles contain each other: {path}",
        "take one of the steps out",
    ),
    _symptom(
        "model-unknown",
        r"failed to poll model '(?P<model>[^']+)': model not found in any model repository",
        "the server was told to load the model {model}, which its repository does not have",
        "mend --load-model, or add the model",
    ),
    # Python models.
    _symptom(
        "python-module-missing",
        r"(?:ModuleNotFoundError: |ImportError: )No module named '?(?P<module>[\w.]+)'?",
        "a Python model imports {module}, which the image does not have",
        "install {module} in the image, or ship it beside model.py",
    ),
    _symptom(
        "python-model-failed",
        r"failed to load '(?P<model>[^']+)' version \d+: Internal: (?!TritonModelException)"
        r"(?P<reason>[A-Za-z_][\w.]*(?:Error|Exception|Warning|Interrupt|Exit): ?[^\n\v]*)",
        "a Python model raised an exception while it was loaded: {reason}",
        "mend model.py; the lines after `At:` say where it was",
        "python-module-missing",
        otherwise=True,
    ),
    # The container, and the server itself.
    _symptom(
        "image-wrong-machine",
        r"exec (?P<program>\S+): exec format error|exec user process caused[^\n\v]*exec format error",
        "the image is for another processor than this machine has",
        "build it for this machine with `platform` in builder.toml, or run it where that processor is",
    ),
    _symptom(
        "server-missing",
        r"exec: \"?(?P<program>[\w./-]*tritonserver)\"?: (?:not found|executable file not found|stat \S+ no such file)"
        r"|tritonserver: (?:command )?not found",
        "the image has no tritonserver where its command looks for it",
        "build on an image of Triton's server, in NVIDIA's layout; a client's image (-sdk) has none",
    ),
    _symptom(
        "machine",
        r"could not select device driver \"[^\"]*\" with capabilities: \[\[gpu\]\]",
        "the engine cannot give a GPU to a container",
        "install the NVIDIA driver and the NVIDIA container toolkit, or leave --gpus out",
    ),
    _symptom(
        "port-in-use",
        r"(?:failed to start (?P<service>\w+) service[^\n\v]*?)?Socket '(?P<address>[^']+)' already in use",
        "the server's port {address} is taken",
        "stop what listens there, or choose others with --http-port, --grpc-port and --metrics-port",
    ),
    _symptom(
        "repository-unreadable",
        r"(?:failed to open (?:text |directory )?\w*(?: for read)?|failed to stat file|[Uu]nable to open \w+)\s*"
        r"(?P<path>/[^\s:\"]+):? ?Permission denied|(?P<other>/[^\s:\"']+): [Pp]ermission denied",
        "the server may not read {path}{other}",
        "let uid 1000 read the model repository: chmod -R a+rX",
    ),
    _symptom(
        "repository-missing",
        r"(?:[Ff]ailed to stat file(?: path)?|directory does not exist at) (?P<path>(?:\w+://)?[^\s\"':]*[^\s\"':.])",
        "the server has no model repository at {path}",
        "mount it there, or correct --model-repository",
        "repository-unreadable",
    ),
    _symptom(
        "repository-missing",
        r"--model-repository must be specified",
        "the server was started without a model repository",
        "start it with --model-repository=/models, as the image's own command does",
    ),
    _symptom(
        "server-argument-invalid",
        r"tritonserver: (?P<reason>(?:unrecognized|invalid|ambiguous) option[^\n\v]*|option [^\n\v]* requires an "
        r"argument)",
        "tritonserver does not take its arguments: {reason}",
        "mend the container's command, or server_args in builder.toml; `tritonserver --help` lists all",
    ),
    _symptom(
        "server-argument-invalid",
        r"--backend-config option (?P<reason>[^\n\v]*)",
        "tritonserver does not take its arguments: --backend-config {reason}",
        "write --backend-config=dali,plugin_libs=/models/libNAME.so, or leave it out where there is no plugin",
    ),
    _symptom(
        "stub-died",
        r"Stub process '?(?P<instance>[\w.-]*?)(?:_\d+)*'? ?is (?:not healthy|unhealthy)",
        "the Python process that runs a model ended",
        "look for what it said last; a crash in a plugin and a lack of memory end it like this",
        *_ANYTHING,
    ),
    _symptom(
        "server-crashed",
        r"Signal \((?P<signal>4|6|7|8|11)\) received",
        "the server crashed with {name}{culprit}",
        "look at what ran in it: a plugin above all; run its operator in DALI alone with the same input",
        *_ANYTHING,
    ),
    _symptom(
        "python-model-failed",
        r"(?m)^(?P<reason>[A-Za-z_][\w.]*(?:Error|Exception): [^\n\v]+)",
        "Python code raised an exception: {reason}",
        "mend the code; the traceback above it says where it was",
        *_ANYTHING,
        otherwise=True,
    ),
)
_SAY = {"library": "a library", "tensor": "a tensor", "model": "the model", "file": "that file"}
"""For groups that matched nothing."""


def diagnose(lines: Iterable[str], *, status: int | None = None, out_of_memory: bool = False) -> list[Diagnosis]:
    """Every cause that the log of a failed server shows, the first one first, without what only follows from them.

    Args:
        lines: the log; of a server that was started again and again, the last start alone counts.
        status: the exit status, where it has ended.
        out_of_memory: the engine says that it was killed for memory.
    """
    found: dict[tuple[str, str, str], _Found] = {}
    run = last_run(plain(lines))
    for record in _records(run):
        for symptom, match, line in _matches(record):
            values = _values(match, record)
            model = values.get("model") or values.get("model2") or _model(line)
            key = (symptom.code, symptom.what.format_map(values), model)
            found.setdefault(key, _Found(symptom, values)).lines.append(line)
    if health(run).ready:
        found = {key: each for key, each in found.items() if not _is_only_a_warning(each)}
    # The same error comes with its model's name and without it.
    named = {key[:2] for key in found if key[2]}
    causes = {key: each for key, each in found.items() if key[2] or key[:2] not in named}
    first = [key for key in causes if not _is_consequence(key, causes)] or list(causes)[:1]
    if out_of_memory and all(causes[key].symptom.follows == _ANYTHING for key in first):
        first = []  # it explains what is left
    return [
        Diagnosis(code, what, each.symptom.remedy.format_map(each.values), _evidence(each.lines), model)
        for code, what, model in first
        for each in [causes[code, what, model]]
    ] or list(_by_status(status, out_of_memory))


@dataclass
class _Found:
    """A symptom that the log shows."""

    symptom: _Symptom
    values: _Values
    lines: list[str] = field(default_factory=list)


def _is_only_a_warning(found: _Found) -> bool:
    """Whether a server that serves has only warned of it: what looks for a GPU complains where there is none."""
    return found.symptom.code == "gpu-missing" and all(_level(line) == "W" for line in found.lines)


def _is_consequence(key: tuple[str, str, str], causes: Mapping[tuple[str, str, str], _Found]) -> bool:
    """Whether there is no more to it than another one of the causes."""
    this = causes[key]
    others = [(code, model) for code, _, model in causes if code != key[0]]
    if "steps" in this.values:  # an ensemble, and the models that keep it from loading
        return any(model in re.split(r"[,\s]+", this.values["steps"]) for _, model in others)
    return any(code.startswith(this.symptom.follows) for code, _ in others) if this.symptom.follows else False


def _by_status(status: int | None, out_of_memory: bool) -> Iterator[Diagnosis]:
    """What the way in which it ended says, where its log says nothing."""
    if out_of_memory:
        yield Diagnosis(
            "memory-exhausted",
            "the kernel killed the server: it took more memory than its container may have",
            "give the container more (MEMORY for compose, --memory for docker), or use smaller batches and fewer "
            "instances",
            (),
        )
    elif status == _KILLED:
        yield Diagnosis(
            "server-killed",
            "the server was killed by SIGKILL, and has no last words",
            "see whether the machine ran out of memory (`dmesg`), whether somebody used `docker kill`, or whether a "
            "`docker stop` lost its patience",
            (),
        )
    elif status is not None and status - 128 in _SIGNALS:
        yield Diagnosis(
            "server-crashed",
            f"the server crashed with {_SIGNALS[status - 128]}",
            "look at what ran in it: a plugin above all; run its operator in DALI alone with the same input",
            (),
        )


def blames_a_plugin(line: str) -> bool:
    """Whether a line of the log says that the server misses a plugin.

    Its table of backends names the plugins whatever becomes of them, and does not count.
    """
    return bool(_BLAME.search(line))


_BLAME = re.compile(r"[Ff]ail\w* to load (?:plugin|library)|(?:No schema found|Schema) for operator")


@dataclass(frozen=True)
class Health:
    """How far a server got."""

    ready: bool
    """It began to listen, which it does only after its models are loaded."""
    models: tuple[str, ...]
    """Those that it loaded."""
    stopped: bool
    """It was asked to stop."""
    begins: bool
    """The log has the server's start: `kubectl logs --tail` leaves it out."""
    complains: bool
    """Some line is of an error, known or not; so is a log with no line of a server's."""


def health(lines: Iterable[str]) -> Health:
    """What the last start in a log came to."""
    run = last_run(plain(lines))
    ready = any(re.search(r"Started (?:HTTPService|GRPCInferenceService)", line) for line in run)
    loaded = {match[1] for line in run if (match := re.search(r"successfully loaded '([^']+)'", line))}
    stopped = any(re.match(r"Signal \((?:2|15)\) received", line) for line in run)
    begins = any(_START.search(line) for line in run)
    levels = {_level(line) for line in run if not _HARMLESS.search(line)}
    complains = bool(levels & {"E", "F"}) or levels <= {""} or any(_ERROR.match(line) for line in run)
    return Health(ready, tuple(sorted(loaded)), stopped, begins, complains)


# A terminal's commands: CSI, OSC, and those of two characters.
_TERMINAL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"
)
# What `docker compose logs` and `kubectl logs --timestamps` put before a line.
_SHIPPING = re.compile(r"^(?:[\w.-]+ +\| )?(?:\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) (?![IWEF] \d))?")


def plain(lines: Iterable[str]) -> list[str]:
    """The lines as the server wrote them: no colours, no names of services, no password of a URL."""
    cleaned = (_SHIPPING.sub("", _TERMINAL.sub("", line.rstrip("\r\n"))[:_LONGEST_LINE]) for line in lines)
    return [redact(line) if "://" in line else line for line in cleaned]


_TABLE = ("|", "+-")
_START = re.compile(r"pinned_memory_manager\.cc|^== ?Triton Inference Server")


def last_run(lines: Sequence[str]) -> list[str]:
    """The lines from the server's last start on: a container that restarts has one log for all of them."""
    starts = [number for number, line in enumerate(lines) if _START.search(line)]
    # NVIDIA's entrypoint has its say before the server does: both belong to one start.
    if len(starts) > 1 and "==" in lines[starts[-2]] and "==" not in lines[starts[-1]]:
        starts.pop()
    return list(lines[starts[-1] if len(starts) > 1 else 0 :])


_GLOG = re.compile(r"^(?:([IWEF])\d{4} [\d:.]+ \d+ |\d{4}-\d\d-\d\dT\S+ ([IWEF]) \d+ )(?:\S+:\d+\] ?)?")
# What every server without a GPU says and means no harm by, and what repeats the error of another model.
_HARMLESS = re.compile(
    r"pinned_memory_manager|cuda_memory_manager|CudaDriverHelper|DCGM|initialize NVML|"
    r"depends on '[^']*' which has no loaded version"
)


# What the server, Python and the loader say of an error without a time.
_ERROR = re.compile(r"error: |terminate called|Traceback |Signal \((?!2\)|15\))|[\w.]+(?:Error|Exception): ")


def _level(line: str) -> str:
    """I, W, E or F; empty where a line has no time of its own."""
    header = _GLOG.match(line)
    return (header[1] or header[2]) if header else ""


@dataclass
class _Record:
    """Lines that belong together: a message, and what follows it without a time of its own."""

    lines: list[str] = field(default_factory=list)


def _records(lines: Iterable[str]) -> Iterator[_Record]:
    """All but what cannot be to blame: tables, what is only information, and what was said in the same words before.

    What Python's processes say counts as information with Triton, even where it is the last that is heard of them.
    """
    seen: set[str] = set()
    record = _Record()
    for line in lines:
        if not line.strip() or line.startswith(_TABLE) or _HARMLESS.search(line):
            continue
        header = _GLOG.match(line)
        if _level(line) == "I" and "pb_stub.cc" not in line:
            # Lines that follow have no time of their own, and may be anybody's.
            yield record
            record = _Record()
            continue
        # protobuf says what is wrong with a file, and Triton right after it which file that is.
        belongs = record.lines and record.lines[-1].startswith("[libprotobuf ERROR")
        if (header and not belongs) or len(record.lines) >= _LONGEST_RECORD:
            yield record
            record = _Record()
        said = line[header.end() :] if header else line
        if header and said in seen:
            continue
        seen.add(said)
        record.lines.append(line)
    yield record


def _unescaped(line: str) -> str:
    """Triton's newer logs quote a message and escape what is in it; where it broke a line is a vertical tab here."""
    return line.replace("\\n", "\v").replace('\\"', '"') if "\\" in line else line


def _matches(record: _Record) -> Iterator[tuple[_Symptom, re.Match[str], str]]:
    """Each symptom that the record shows, with the line that it begins in."""
    if not record.lines:
        return
    texts = [_body(_unescaped(line)) for line in record.lines]
    starts = [0]
    for text in texts:
        starts.append(starts[-1] + len(text) + 1)
    whole = "\n".join(texts)
    claimed: set[int] = set()
    hits: list[tuple[int, int, _Symptom, re.Match[str]]] = []
    for order, symptom in enumerate(_SYMPTOMS):
        # A symptom of its own may stand in every line of a log that has no times.
        for match in symptom.pattern.finditer(whole):
            line = next(number for number, start in enumerate(starts) if start > match.start()) - 1
            if symptom.otherwise and line in claimed:
                continue
            if not symptom.otherwise:
                last = whole.count("\n", match.start(), match.end())
                claimed.update(range(line, line + last + 1))
            hits.append((line, order, symptom, match))
    for line, _, symptom, match in sorted(hits, key=lambda hit: hit[:2]):
        yield symptom, match, record.lines[line].strip()


def _body(line: str) -> str:
    """Without the time, and without the quotes of the newer format."""
    header = _GLOG.match(line)
    text = line[header.end() :] if header else line
    return text[1:].removesuffix('"') if text.startswith('"') else text


class _Values(dict[str, str]):
    """A pattern's groups, with something to say for those that matched nothing."""

    def __missing__(self, name: str) -> str:
        return _SAY.get(name, "")


def _values(match: re.Match[str], record: _Record) -> _Values:
    values = _Values({name: value.strip() for name, value in match.groupdict().items() if value})
    if "signal" in values:
        values["name"] = _SIGNALS[int(values["signal"])]
        culprit = _culprit(record.lines)
        values["culprit"] = f" in {culprit}" if culprit else ""
    return values


_FRAME = re.compile(r"^\s*\d+# .* in (?P<library>\S+)$")
# Of every trace: the handler itself, and what only carries the call.
_BYSTANDERS = re.compile(r"^(?:ld-linux|libc[.-]|libpthread|libstdc\+\+|libgcc|libm\.|tritonserver|libtritonserver)")


def _culprit(lines: Sequence[str]) -> str:
    """The library of the topmost frame of the stack trace that is not the server's or the system's."""
    libraries = [match["library"] for line in lines if (match := _FRAME.match(line))]
    return next((each for each in libraries if not _BYSTANDERS.match(each.rsplit("/", 1)[-1])), "")


_MODEL = re.compile(
    r"(?:failed to load|model directory|[Ee]nsemble|[Mm]odel) '(?P<model>[\w.-]+)'"
    r"|Failed to initialize model instance '?(?P<instance>[\w.-]+?)(?:_\d+)+'?\b"
)


def _model(line: str) -> str:
    """The model that a line of the log is about."""
    match = _MODEL.search(line)
    return (match["model"] or match["instance"] or "") if match else ""


def _evidence(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))[:EVIDENCE_LINES]
