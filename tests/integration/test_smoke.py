"""The proof: what passes, and what must not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from builder.docker.engine import OWNER, Engine

from .conftest import Project, copy_project, interrupt


def _ours(engine: Engine) -> list[str]:
    return [each.name or "" for each in engine.client.containers.list(all=True, filters={"label": OWNER})]


def test_smoke_proves_every_model_over_both_protocols(verified: dict[str, Any], image: dict[str, Any]) -> None:
    assert verified["passed"] is True
    (proof,) = verified["images"]
    assert proof["target"] == "embedded"
    assert proof["digest"] == image["digest"]
    (model,) = proof["models"]
    assert (model["name"], model["version"]) == ("mydali", "1")
    assert (model["oracle"], model["values_compared"]) == ("identity", True)
    assert model["requests"] > 1000
    assert model["left_out"] == 0
    assert 0 < model["latency_ms"]["p50"] <= model["latency_ms"]["p99"]
    assert model["requests_per_second"] > 0


def test_the_negative_control_fails_because_of_the_plugin(verified: dict[str, Any]) -> None:
    control = verified["images"][0]["negative_control"]
    assert control["applicable"]
    assert control["passed"]
    assert "libcustomcopy.so" in control["evidence"]


def test_any_image_of_the_engine_can_be_proven(shipped: Project, image: dict[str, Any]) -> None:
    document = shipped.builder("smoke", image["reference"], "--seed=7", "--json").ok().document
    assert document["images"][0]["digest"] == image["digest"]
    assert document["images"][0]["seed"] == 7


def test_no_container_is_left(verified: dict[str, Any], engine: Engine) -> None:
    assert _ours(engine) == []


def test_an_image_that_needs_no_plugin_does_not_pass_for_one_that_does(
    project: Project, built: dict[str, Any], engine: Engine
) -> None:
    """The command lists the plugin, the pipeline does not use it: inference alone would have passed."""
    project.edit("builder.toml", "under-test", "under-test-unused")
    project.edit("model_repository/mydali/1/dali.py", 'plugin_manager.load_library("/models/libcustomcopy.so")', "")
    project.edit("model_repository/mydali/1/dali.py", "fn.custom_copy(data", "fn.copy(data")
    project.builder("build").ok()
    project.builder("smoke", "--json").failed("negative-control-served", 5)
    project.builder("push", "--json").failed("not-verified", 6)
    assert _ours(engine) == []


def test_a_wrong_byte_is_found(project: Project, built: dict[str, Any], engine: Engine) -> None:
    project.edit("builder.toml", "under-test", "under-test-wrong")
    project.edit("model_repository/mydali/1/dali.py", "return fn.custom_copy(data", "return fn.custom_copy(data ^ 1")
    project.builder("build").ok()
    done = project.builder("smoke", "--json")
    error = done.failed("wrong-answer", 5)
    assert "DALI_OUTPUT_0" in error["what"]
    assert done.document["passed"] is False
    project.builder("push", "--json").failed("not-verified", 6)
    assert _ours(engine) == []


def test_a_function_that_fails_is_named_with_its_line(shipped: Project, image: dict[str, Any], tmp_path: Path) -> None:
    project = Project(copy_project(tmp_path / "project"))
    project.edit("builder.toml", 'oracle = "identity"', 'oracle = "right.py:answer"')
    (project.root / "right.py").write_text("def answer(inputs):\n    print('asked')\n    return inputs['NAME']\n")
    error = project.builder("smoke", image["reference"], "--json").failed("oracle-failed", 5)
    assert "KeyError: 'NAME'" in error["what"]
    assert error["where"] == "right.py:3"


def test_golden_arrays_are_asked_and_compared(shipped: Project, image: dict[str, Any], tmp_path: Path) -> None:
    project = Project(copy_project(tmp_path / "project"))
    project.edit("builder.toml", 'oracle = "identity"', 'oracle = "golden.npz"')
    data = np.arange(300, dtype=np.uint8).reshape(10, 30)
    np.savez(project.root / "golden.npz", DALI_INPUT_0=data, DALI_OUTPUT_0=data)
    (model,) = project.builder("smoke", image["reference"], "--json").ok().document["images"][0]["models"]
    assert (model["oracle"], model["values_compared"]) == ("golden.npz", True)
    wrong = np.where(data == 7, 8, data).astype(np.uint8)
    np.savez(project.root / "golden.npz", DALI_INPUT_0=data, DALI_OUTPUT_0=wrong)
    error = project.builder("smoke", image["reference"], "--json").failed("wrong-answer", 5)
    assert "differs at [0, 7]: got 7, not 8; 2 of 300 elements differ, by 1 at most" in error["what"]


def test_no_server_is_started_for_golden_arrays_that_do_not_fit(built_project: Project, engine: Engine) -> None:
    built_project.edit("builder.toml", 'oracle = "identity"', 'oracle = "golden.npz"')
    np.savez(built_project.root / "golden.npz", DALI_INPUT_0=np.zeros((1, 3)))
    done = built_project.builder("smoke", "--json")
    error = done.failed("golden-invalid", 2)
    assert "'DALI_INPUT_0' is float64[1, 3], and config.pbtxt declares uint8[samples, -1]" in error["what"]
    assert "array 'DALI_OUTPUT_0' is missing" in error["detail"]
    assert "ready after" not in done.stderr


def test_a_model_that_takes_no_random_input_wants_golden_arrays(
    project: Project, built: dict[str, Any], engine: Engine
) -> None:
    project.edit("builder.toml", "under-test", "under-test-decoder")
    project.edit("builder.toml", '\n[models]\nmydali = { oracle = "identity" }', "\n")
    project.edit(
        "model_repository/mydali/1/dali.py",
        "return fn.custom_copy(data",
        "return fn.decoders.image(fn.custom_copy(data)",
    )
    project.edit(
        "model_repository/mydali/config.pbtxt",
        '"DALI_OUTPUT_0"\n    data_type: TYPE_UINT8\n    dims: [ -1 ]',
        '"DALI_OUTPUT_0"\n    data_type: TYPE_UINT8\n    dims: [ -1, -1, 3 ]',
    )
    project.builder("build").ok()
    error = project.builder("smoke", "--json").failed("request-refused", 5)
    assert "FILE.npz" in error["remedy"]
    assert error["detail"]


def test_a_server_that_dies_ends_the_wait_at_once(shipped: Project, image: dict[str, Any], engine: Engine) -> None:
    """A model repository that cannot be loaded: the last lines of the log, and what they mean."""
    derived = _derive(engine, image["digest"], "died", "RUN rm /models/mydali/1/model.dali /models/mydali/1/dali.py")
    error = shipped.builder("smoke", derived, "--json").failed("server-died", 5)
    assert error["detail"]


def test_an_image_without_a_server_fails_with_its_own_words(
    shipped: Project, image: dict[str, Any], engine: Engine
) -> None:
    derived = _derive(engine, image["digest"], "no-server", 'CMD ["sh", "-c", "echo no server in here; exit 4"]')
    error = shipped.builder("smoke", derived, "--json").failed("server-died", 5)
    assert "no server in here" in " ".join(error["detail"])
    assert "exit status 4" in error["what"]


def test_a_server_that_dies_while_it_is_asked_is_named_as_such(
    shipped: Project, image: dict[str, Any], engine: Engine
) -> None:
    ready = "until curl -sf http://127.0.0.1:8000/v2/health/ready; do sleep 0.1; done"
    listed = "--backend-config=dali,plugin_libs=/models/libcustomcopy.so"
    command = f"tritonserver --model-repository=/models {listed} & {ready}; sleep 1; echo the end; kill -9 $!; exit 9"
    derived = _derive(engine, image["digest"], "dies", f"CMD {json.dumps(['sh', '-c', command])}")
    error = shipped.builder("smoke", derived, "--json").failed("server-died", 5)
    assert "while it was asked" in error["what"]
    assert "the end" in " ".join(error["detail"])


def test_an_image_that_never_gets_ready_is_given_up(shipped: Project, image: dict[str, Any], engine: Engine) -> None:
    derived = _derive(engine, image["digest"], "sleeps", 'CMD ["sleep", "600"]')
    shipped.builder("smoke", derived, "--timeout=3", "--json").failed("server-not-ready", 5)
    assert _ours(engine) == []


def test_an_image_that_is_not_there(shipped: Project, engine: Engine) -> None:
    shipped.builder("smoke", "under-test:nowhere", "--json").failed("no-image", 3)


def test_a_gpu_that_is_not_there(shipped: Project, image: dict[str, Any], engine: Engine) -> None:
    done = shipped.builder("smoke", image["reference"], "--gpus=all", "--json")
    if "nvidia" in json.dumps(engine.client.info().get("Runtimes", {})):
        done.ok()
    else:
        assert "GPU" in done.failed("machine", 3)["what"]
    assert _ours(engine) == []


def test_ctrl_c_leaves_no_container_and_exit_130(built_project: Project, engine: Engine) -> None:
    process = built_project.start("smoke", "--json")
    done = interrupt(process, lambda: bool(_ours(engine)))
    done.failed("interrupted", 130)
    assert _ours(engine) == []
    # What an earlier run proved of this very digest still holds.
    assert (built_project.root / ".builder/embedded/verification.json").exists()


def test_containers_of_a_killed_run_are_swept(built_project: Project, engine: Engine) -> None:
    process = built_project.start("smoke", "--json")
    while not _ours(engine):
        assert process.poll() is None
    process.kill()
    process.communicate()
    left = set(_ours(engine))
    assert left
    built_project.builder("smoke", "--json").ok()
    assert not left & set(_ours(engine))


def _derive(engine: Engine, base: str, name: str, instructions: str) -> str:
    """An image of one more layer, by way of a container, as the base is in this engine alone."""
    tag = f"under-test:{name}"
    command = re.match(r"RUN (.*)", instructions)
    container = engine.client.containers.create(base, ["sh", "-c", command[1] if command else "true"], user="0")
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0, container.logs()
        described = engine.image(base)["Config"]
        changes = [
            f"CMD {json.dumps(described['Cmd'])}" if command else instructions,
            "USER 1000:1000",
        ]
        container.commit(repository="under-test", tag=name, changes=changes)
    finally:
        container.remove(force=True)
    return tag
