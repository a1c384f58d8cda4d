"""The watch: each kind of change, each kind of mistake, and nothing left at the end."""

from __future__ import annotations

import json
import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest
import tritonclient.http

from builder.docker.engine import OWNER, Engine

from .conftest import Project, copy_project

CONFIG = "model_repository/mydali/config.pbtxt"
PIPELINE = "model_repository/mydali/1/dali.py"
OPERATOR = "plugin/custom_copy.cc"
COPY = "std::memcpy(piece->dst + from, piece->src + from, to - from);"
WRONG = "std::memset(piece->dst + from, 1, to - from);"

ECHO = """
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        given = [utils.get_input_tensor_by_name(each, "DALI_INPUT_0").as_numpy() for each in requests]
        return [utils.InferenceResponse([utils.Tensor("DALI_OUTPUT_0", each)]) for each in given]
"""


class Watch:
    """A `dev --json` that runs, and what it says."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.project = project
        self.process = project.start("dev", "--json", *arguments)
        self.said: list[str] = []
        self._verdicts: queue.Queue[dict[str, Any]] = queue.Queue()
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._results, self._messages)]
        for each in self._readers:
            each.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def verdict(self, timeout: float = 120) -> dict[str, Any]:
        return self._verdicts.get(timeout=timeout)

    def right(self, timeout: float = 120) -> dict[str, Any]:
        verdict = self.verdict(timeout)
        assert verdict["passed"], verdict
        return verdict

    def wrong(self, code: str) -> dict[str, Any]:
        verdict = self.verdict()
        assert not verdict["passed"], verdict
        error = verdict["error"]
        assert error["code"] == code, error
        assert error["remedy"]
        return dict(verdict)

    def save(self, name: str, old: str, new: str) -> None:
        self.project.edit(name, old, new)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(60)
        for each in self._readers:
            each.join(10)
        return status

    def _results(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._verdicts.put(json.loads(line))

    def _messages(self) -> None:
        assert self.process.stderr
        self.said.extend(self.process.stderr)


def did(verdict: dict[str, Any]) -> list[str]:
    return [each["what"].partition(" ")[0] for each in verdict["done"]]


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Watch]:
    """One watch for all of these, as a day has one: each test leaves the project as it was."""
    project = Project(copy_project(tmp_path_factory.mktemp("dev") / "project"))
    with Watch(project) as started:
        first = started.right(timeout=900)
        assert first["changed"] == []
        assert did(first) == ["started", "compiled", "serialized", "started", "loaded", "asked"]
        yield started


def ours(engine: Engine) -> list[str]:
    return [each.name or "" for each in engine.client.containers.list(all=True, filters={"label": OWNER})]


def test_a_configuration_is_loaded_and_asked(watch: Watch) -> None:
    watch.save(CONFIG, "max_batch_size: 256", "max_batch_size: 16")
    verdict = watch.right()
    assert verdict["changed"] == [CONFIG]
    assert did(verdict) == ["loaded", "asked"]  # no compiler, no serialization
    (model,) = verdict["models"]
    assert (model["name"], model["oracle"], model["values_compared"]) == ("mydali", "identity", True)
    assert model["requests"] > 50
    with tritonclient.http.InferenceServerClient(verdict["http"]) as client:
        assert client.get_model_config("mydali")["max_batch_size"] == 16
    watch.save(CONFIG, "max_batch_size: 16", "max_batch_size: 256")
    assert watch.right()["http"] == verdict["http"]  # by the same server


def test_a_pipeline_is_serialized_and_loaded(watch: Watch) -> None:
    watch.save(PIPELINE, "fn.custom_copy(data, device", "fn.custom_copy(data ^ 1, device")
    verdict = watch.wrong("wrong-answer")
    assert did(verdict)[:2] == ["serialized", "loaded"]
    watch.save(PIPELINE, "fn.custom_copy(data ^ 1, device", "fn.custom_copy(data, device")
    verdict = watch.right()
    assert verdict["changed"] == [PIPELINE]
    assert did(verdict) == ["serialized", "loaded", "asked"]


def test_a_broken_pipeline_is_told_and_the_server_goes_on(watch: Watch) -> None:
    # Nothing that reading the file would find.
    watch.save(PIPELINE, "    return fn", "    [][len('x')]\n    return fn")
    verdict = watch.wrong("pipeline-does-not-serialize")
    assert verdict["error"]["where"].startswith(f"{PIPELINE}:")
    assert "IndexError" in " ".join(verdict["error"]["detail"])
    with tritonclient.http.InferenceServerClient(verdict["http"]) as client:
        assert client.is_model_ready("mydali")
    watch.save(PIPELINE, "    [][len('x')]\n", "")
    assert watch.right()["models"]


def test_what_check_finds_is_told_before_anything_is_made(watch: Watch) -> None:
    watch.save(PIPELINE, "fn.custom_copy(", "fn.custom_cpy(")
    verdict = watch.wrong("operator-unregistered")
    assert verdict["done"] == []
    watch.save(PIPELINE, "fn.custom_cpy(", "fn.custom_copy(")
    mended = watch.right()
    assert did(mended) == ["asked"]  # nothing was compiled, serialized or loaded in between
    assert mended["http"] == verdict["http"]


def test_a_model_that_does_not_load_leaves_the_others(watch: Watch) -> None:
    folder = watch.project.root / "model_repository" / "in_python"
    prepared = watch.project.root / "in_python"
    (prepared / "1").mkdir(parents=True)
    (prepared / "1" / "model.py").write_text("raise ValueError('not yet')\n")
    signature = (watch.project.root / CONFIG).read_text().partition("max_batch_size")[2].partition("\n")[2]
    (prepared / "config.pbtxt").write_text('backend: "python"\nmax_batch_size: 8\n' + signature)
    prepared.rename(folder)
    verdict = watch.wrong("model-not-loaded")
    assert "in_python" in verdict["error"]["what"]
    assert "not yet" in " ".join([verdict["error"]["what"], *verdict["error"]["detail"]])
    with tritonclient.http.InferenceServerClient(verdict["http"]) as client:
        assert client.is_model_ready("mydali")
    (folder / "1" / "model.py").write_text(ECHO)
    verdict = watch.right()
    assert [(each["name"], each["oracle"]) for each in verdict["models"]] == [("in_python", "signature")]
    folder.rename(prepared)
    watch.right()


def test_an_operator_that_answers_wrongly_is_told_and_mended(watch: Watch, engine: Engine) -> None:
    watch.save(OPERATOR, COPY, WRONG)
    verdict = watch.wrong("wrong-answer")
    assert "DALI_OUTPUT_0" in verdict["error"]["what"]
    assert did(verdict)[:4] == ["compiled", "serialized", "started", "loaded"]
    watch.save(OPERATOR, WRONG, COPY)
    mended = watch.right()
    assert mended["changed"] == [OPERATOR]
    assert mended["http"] != verdict["http"]  # a process of its own
    # One compiles, one serves, and the former ones go with the next verdict at the latest.
    watch.save(CONFIG, "max_batch_size: 256", "max_batch_size: 255")
    watch.right()
    watch.save(CONFIG, "max_batch_size: 255", "max_batch_size: 256")
    watch.right()
    assert len(ours(engine)) == 2


def test_what_the_compiler_says_is_told(watch: Watch) -> None:
    watch.save(OPERATOR, "constexpr int64_t kTasksPerThread", "constexpr int64 kTasksPerThread")
    verdict = watch.wrong("plugin-does-not-compile")
    assert verdict["error"]["detail"][0].startswith(f"{OPERATOR}:16:")
    watch.save(OPERATOR, "constexpr int64 kTasksPerThread", "constexpr int64_t kTasksPerThread")
    assert "started" not in did(watch.right())  # the same library as the server has


def test_an_oracle_is_read_again(watch: Watch) -> None:
    settings = watch.project.root / "builder.toml"
    before = settings.read_text()
    right = watch.project.root / "right.py"
    right.write_text("def answer(inputs):\n    return {'DALI_OUTPUT_0': inputs['DALI_INPUT_0']}\n")
    settings.write_text(before.replace('oracle = "identity"', 'oracle = "right.py:answer"'))
    verdict = watch.right()
    assert (did(verdict), verdict["models"][0]["oracle"]) == (["asked"], "right.py:answer")
    right.write_text("def answer(inputs):\n    return {'DALI_OUTPUT_0': inputs['DALI_INPUT_0'] ^ 1}\n")
    watch.wrong("wrong-answer")
    settings.write_text(before.replace('oracle = "identity"', 'oracel = "identity"'))
    watch.wrong("key-unknown")
    settings.write_text(before)
    watch.right()


def test_a_model_comes_and_goes(watch: Watch) -> None:
    folder = watch.project.root / "model_repository" / "another"
    prepared = watch.project.root / "another"
    (prepared / "1").mkdir(parents=True)
    (prepared / "1" / "dali.py").write_text((watch.project.root / PIPELINE).read_text())
    (prepared / "config.pbtxt").write_text((watch.project.root / CONFIG).read_text().replace("mydali", "another"))
    prepared.rename(folder)
    verdict = watch.right()
    assert [each["name"] for each in verdict["models"]] == ["another"]
    folder.rename(prepared)
    verdict = watch.right()
    with tritonclient.http.InferenceServerClient(verdict["http"]) as client:
        assert not client.is_model_ready("another")
        assert client.is_model_ready("mydali")


def test_ctrl_c_leaves_nothing(watch: Watch, engine: Engine) -> None:
    assert watch.stop() == 130
    assert watch.verdict()["error"]["code"] == "interrupted"
    assert "Traceback" not in "".join(watch.said)
    assert ours(engine) == []
    state = watch.project.root / ".builder" / "embedded"
    assert not (state / "dev" / "models").exists()
    # Nothing of it can be taken for what a build or a smoke leaves.
    assert not [path for path in state.glob("*.json") if path.name != "dev.bake.json"]


def test_ctrl_c_while_it_compiles(watch: Watch, engine: Engine) -> None:
    """The second watch on a project; what the first compiled is there."""
    with Watch(watch.project) as again:
        first = again.right(timeout=300)
        assert first["done"][1]["what"] == "compiled"
        again.save(OPERATOR, COPY, WRONG)
        try:
            _until_compiling(engine)
            assert again.stop() == 130
        finally:
            again.save(OPERATOR, WRONG, COPY)
    assert ours(engine) == []


def _until_compiling(engine: Engine) -> None:
    for _ in range(600):
        for container in engine.client.containers.list(filters={"label": OWNER}):
            if any("cc1plus" in " ".join(each) for each in container.top()["Processes"]):
                return
        threading.Event().wait(0.05)
    raise AssertionError("the compiler did not start")


def test_the_line_for_people(watch: Watch, engine: Engine) -> None:
    process = watch.project.start("dev")
    assert process.stdout
    try:
        line = process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert "✓" in line
    assert "start: " in line
    assert "mydali/1 right (identity, " in line
    assert process.returncode == 130
