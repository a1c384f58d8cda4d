from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from builder import package, pbtxt, project, recipe, scaffold
from builder.errors import BadUsage
from builder.project import Project
from builder.reference import Reference
from builder.scaffold import Name, eject, init

EXAMPLE_S = re.compile(r"custom.?copy|my.?dali", re.IGNORECASE)


@pytest.mark.parametrize(
    ("text", "snake", "camel", "library", "repository"),
    [
        ("my_blur", "my_blur", "MyBlur", "myblur", "my-blur"),
        ("my-blur", "my_blur", "MyBlur", "myblur", "my-blur"),
        ("MyBlur", "my_blur", "MyBlur", "myblur", "my-blur"),
        ("myBlur", "my_blur", "MyBlur", "myblur", "my-blur"),
        (" my blur ", "my_blur", "MyBlur", "myblur", "my-blur"),
        ("my--blur", "my_blur", "MyBlur", "myblur", "my-blur"),
        ("my.blur", "my_blur", "MyBlur", "myblur", "my-blur"),
        ("RGBBlur", "rgb_blur", "RgbBlur", "rgbblur", "rgb-blur"),
        ("Conv2D", "conv2d", "Conv2d", "conv2d", "conv2d"),
        ("BLUR", "blur", "Blur", "blur", "blur"),
        # Functions of C, but no words of C++.
        ("gamma", "gamma", "Gamma", "gamma", "gamma"),
        ("custom_copy", "custom_copy", "CustomCopy", "customcopy", "custom-copy"),
        ("a" * 50, "a" * 50, "A" + "a" * 49, "a" * 50, "a" * 50),
    ],
)
def test_a_name_has_the_spelling_that_each_file_needs(
    text: str, snake: str, camel: str, library: str, repository: str
) -> None:
    name = Name.parse(text)
    assert (name.snake, name.camel, name.library, name.repository) == (snake, camel, library, repository)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "2d", "my_2d", "_blur", "blur_", "my__blur", "ünïcode", "my/blur", "..", "a" * 51),
        *("x", "a_b", "my_x_y"),  # DALI would make other names of AB and MyXY
        *("class", "int", "namespace", "Operator", "lambda", "import", "std", "dali"),
        *("test", "install", "all"),  # CMake
        *("copy", "Resize", "gaussian_blur", "readers", "random"),  # DALI's own, or its modules
        *("piece", "copy_range"),  # the example's
    ],
)
def test_a_name_that_something_would_not_take_is_refused(text: str) -> None:
    with pytest.raises(BadUsage) as failure:
        Name.parse(text)
    assert "--name NAME" in failure.value.remedy


@given(some.one_of(some.text(max_size=60), some.from_regex(r"[A-Za-z][A-Za-z0-9_. -]{0,20}", fullmatch=True)))
def test_any_text_is_a_usable_name_or_none(text: str) -> None:
    try:
        name = Name.parse(text)
    except BadUsage:
        return
    assert name.snake.isidentifier()
    assert name.snake.isascii()
    assert Name.parse(name.camel) == Name.parse(name.snake) == name
    Reference.parse(f"localhost:5000/{name.repository}")


def test_a_new_project_is_whole_and_loads(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "new"
    files = init(folder, Name("my_blur"), "")
    assert sorted(files) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert {"builder.toml", "plugin/CMakeLists.txt", "plugin/my_blur.cc", "model_repository/my_blur/1/dali.py"} < set(
        files
    )
    made = project.load(folder, (), {})
    assert (made.repository, made.name) == ("localhost:5000/my-blur", "my-blur")
    assert list(made.models) == ["my_blur"]
    assert made.verification("my_blur").oracle == "identity"
    assert pbtxt.read(folder / "model_repository/my_blur/config.pbtxt").message.name == "my_blur"


def test_a_new_project_takes_the_repository_that_is_given(tmp_path: Path) -> None:
    init(tmp_path, Name("my_blur"), "registry.example.com/team/blur")
    assert project.load(tmp_path, (), {}).repository == "registry.example.com/team/blur"


def test_what_is_commented_out_in_a_new_project_loads_too(tmp_path: Path) -> None:
    init(tmp_path, Name("my_blur"), "")
    file = tmp_path / "builder.toml"
    file.write_text(re.sub(r"^# ((\[targets|triton_image).*)$", r"\1", file.read_text(), flags=re.MULTILINE))
    production = project.load(tmp_path, (), {}).targets["production"]
    assert production.triton_image.startswith("nvcr.io/nvidia/tritonserver:")
    assert production.dali_version


def test_a_new_project_has_no_trace_of_the_example(tmp_path: Path) -> None:
    for file in init(tmp_path, Name("my_blur"), ""):
        assert not EXAMPLE_S.search(file)
        assert not EXAMPLE_S.search((tmp_path / file).read_text())


def test_the_example_s_names_are_everywhere_the_new_one_must_be(tmp_path: Path) -> None:
    init(tmp_path, Name("my_blur"), "")
    operator = (tmp_path / "plugin/my_blur.cc").read_text()
    assert "DALI_SCHEMA(MyBlur)" in operator
    assert "::my_blur_plugin::MyBlur<::dali::CPUBackend>" in operator
    assert "namespace my_blur_plugin {" in operator
    assert '#include "my_blur.h"' in operator
    line = "add_dali_plugin(myblur SOURCES my_blur.cc GPU_SOURCES my_blur_gpu.cc my_blur.cu)"
    assert line in (tmp_path / "plugin/CMakeLists.txt").read_text()
    gpu_operator = (tmp_path / "plugin/my_blur_gpu.cc").read_text()
    assert "::my_blur_plugin::MyBlur<::dali::GPUBackend>" in gpu_operator
    for source in (gpu_operator, (tmp_path / "plugin/my_blur.cu").read_text()):
        assert '#include "my_blur_kernel.h"' in source
    pipeline = (tmp_path / "model_repository/my_blur/1/dali.py").read_text()
    assert "fn.my_blur(" in pipeline
    assert '"/models/libmyblur.so"' in pipeline


def test_a_new_project_s_python_files_are_python(tmp_path: Path) -> None:
    for file in init(tmp_path, Name("my_blur"), ""):
        if file.endswith(".py"):
            ast.parse((tmp_path / file).read_text())


def test_every_file_of_the_example_s_plugin_is_in_a_new_project() -> None:
    shipped = {path.name for path in (package.ROOT / "plugin").iterdir() if path.is_file()}
    assert set(scaffold._PLUGIN_FILES) == shipped


def listing(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else "" for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    "there", ["builder.toml", "README.md", "plugin/my_blur.cu", "model_repository/my_blur/config.pbtxt"]
)
def test_a_file_that_is_there_is_kept_and_nothing_is_added(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(BadUsage, match=f"{there} is there already"):
        init(tmp_path, Name("my_blur"), "")
    assert listing(tmp_path) == before


def test_several_files_that_are_there_are_counted(tmp_path: Path) -> None:
    init(tmp_path, Name("my_blur"), "")
    with pytest.raises(BadUsage, match=r"builder\.toml is there already, and \d+ more"):
        init(tmp_path, Name("my_blur"), "")


def test_other_files_do_not_disturb(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("mine")
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "other.cc").write_text("mine")
    init(tmp_path, Name("my_blur"), "")
    assert (tmp_path / "plugin" / "other.cc").read_text() == "mine"


@pytest.mark.parametrize("place", ["plugin", "model_repository", "tests"])
def test_a_file_in_a_folder_s_place_leaves_nothing_half_written(tmp_path: Path, place: str) -> None:
    (tmp_path / place).write_text("mine")
    with pytest.raises(BadUsage, match="cannot be written"):
        init(tmp_path, Name("my_blur"), "")
    assert listing(tmp_path) == {place: "mine"}


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadUsage, match="cannot be written"):
        init(tmp_path / "file", Name("my_blur"), "")
    with pytest.raises(BadUsage, match="cannot be written"):
        init(tmp_path / "file" / "below", Name("my_blur"), "")
    assert listing(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("last", ["plugin/my_blur.cc", ".gitignore"])
def test_whatever_stops_it_takes_back_all_that_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, last: str
) -> None:
    replace = Path.replace

    def fails(path: Path, target: Path) -> Path:
        if str(target).endswith(last):
            raise failure
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises((BadUsage, KeyboardInterrupt)):
        init(tmp_path / "deep" / "new", Name("my_blur"), "")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def started(tmp_path: Path) -> Project:
    """A new project."""
    init(tmp_path, Name("my_blur"), "")
    return project.load(tmp_path, ['server_args=["--log-verbose=1"]'], {})


def copied(dockerfile: str) -> set[str]:
    """What a Dockerfile copies and mounts out of the build's context."""
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    found = set()
    for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE):
        words = line.split()
        if not any(word.startswith("--from=") for word in words):
            found |= {word for word in words[:-1] if not word.startswith("--")}
    assert set(re.findall(r"--from=(\S+)", dockerfile)) <= stages
    return {each.replace("plugi[n]", "plugin").removesuffix("/*.so") for each in found}


def test_an_ejected_project_has_all_that_its_dockerfile_copies(started: Project) -> None:
    files = eject(started, ("/models/libmyblur.so",))
    wanted = copied((started.root / "Dockerfile").read_text())
    assert {"embedded", "builder/stages", "builder/dali_proto.py", "plugin", "model_repository"} <= wanted
    assert [each for each in wanted if not (started.root / each).exists()] == []
    assert ".dockerignore" in files
    for line in (started.root / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            assert (started.root / line[1:]).exists()


def test_what_is_ejected_is_the_program_s_own_but_for_names(started: Project) -> None:
    for file in eject(started, ()):
        ours, theirs = package.ROOT / file, started.root / file
        if file not in ("Dockerfile", "docker-compose.yml"):
            assert theirs.read_bytes() == ours.read_bytes()
        assert theirs.stat().st_mode == ours.stat().st_mode
    assert not EXAMPLE_S.search((started.root / "docker-compose.yml").read_text())
    assert "image: ${IMAGE:-my-blur:embedded}" in (started.root / "docker-compose.yml").read_text()


@pytest.mark.parametrize("plugins", [(), ("/models/libmyblur.so",), ("/models/libb.so", "/models/liba.so")])
def test_an_ejected_dockerfile_starts_the_server_as_a_build_does(started: Project, plugins: tuple[str, ...]) -> None:
    eject(started, plugins)
    dockerfile = (started.root / "Dockerfile").read_text()
    [words] = re.findall(r"^CMD (\[\"tritonserver\".*)$", dockerfile, re.MULTILINE)
    assert ast.literal_eval(words) == recipe.command(started, plugins)
    assert not EXAMPLE_S.search(dockerfile)
    assert package.dockerfile(started.root) == started.root / "Dockerfile"


def test_what_was_ejected_is_not_ejected_again(started: Project) -> None:
    eject(started, ())
    (started.root / "Dockerfile").write_text("FROM mine\n")
    before = listing(started.root)
    with pytest.raises(BadUsage, match="Dockerfile is there already"):
        eject(started, ("/models/libother.so",))
    assert listing(started.root) == before


def test_an_interrupted_init_leaves_nothing(tmp_path: Path) -> None:
    """A real signal, in a real process, while files are written."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "replace, calls = Path.replace, []\n"
        "def stopping(path, target):\n"
        "    calls.append(target)\n"
        "    if len(calls) == 4:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return replace(path, target)\n"
        "Path.replace = stopping\n"
        f"sys.argv = ['builder', 'init', {str(tmp_path / 'new')!r}, '--name', 'my_blur']\n"
        "from builder.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=package.ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert list(tmp_path.iterdir()) == []
