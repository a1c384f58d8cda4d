from __future__ import annotations

import json
import re
from typing import Any

import pytest

from builder import package, recipe
from builder.project import DEFAULT_DALI, Project, Target
from builder.recipe import OCI, OURS, Base, Bases
from builder.reference import Digest
from builder.revision import Revision

from .records import parts, plugin

DIGEST = "sha256:" + "a" * 64
PLUGIN, OTHER = "/models/libcustomcopy.so", "/models/libother.so"
DEBIAN, TRITON = Base("debian:12", Digest(DIGEST)), Base("nvcr.io/x/y:1", Digest("sha256:" + "b" * 64))
EMBEDDED = Bases(debian=DEBIAN)
HERE = Revision("c0ffee", 1700000000, "https://example.com/x.git")


def changed(project: Project, **values: Any) -> Project:
    return Project.model_validate({**dict(project), **values})


@pytest.mark.parametrize(
    ("values", "bases", "arguments"),
    [
        ({}, EMBEDDED, {"TRITON_IMAGE": "embedded", "DEBIAN_IMAGE": "debian:12", "DALI_VERSION": DEFAULT_DALI}),
        (
            {"dali": "2.1.1"},
            EMBEDDED,
            {"TRITON_IMAGE": "embedded", "DEBIAN_IMAGE": "debian:12", "DALI_VERSION": "2.1.1"},
        ),
        # The image has its own; what builder.toml says of it is only believed by `check`.
        ({"triton_image": "nvcr.io/x/y:1", "dali": "2.1.1"}, Bases(TRITON), {"TRITON_IMAGE": "nvcr.io/x/y:1"}),
        (
            {"triton_image": "nvcr.io/x/y:1", "dali": "2.1.1", "toolchain": "wheel"},
            Bases(TRITON, DEBIAN),
            {
                "TRITON_IMAGE": "nvcr.io/x/y:1",
                "DEBIAN_IMAGE": "debian:12",
                "DALI_VERSION": "2.1.1",
                "COMPILED_ON": "wheel",
            },
        ),
    ],
)
def test_a_target_is_its_build_arguments(
    project: Project, values: dict[str, str], bases: Bases, arguments: dict[str, str]
) -> None:
    target = Target.model_validate(values)
    assert recipe.build_arguments(project, target, bases) == {**arguments, "DALI_PLUGIN_CUDA": "ON"}


def test_the_outermost_base_is_the_one_of_somebody_else() -> None:
    assert (EMBEDDED.outermost, Bases(TRITON, DEBIAN).outermost) == (DEBIAN, TRITON)


def test_named_libraries_are_the_ones_to_be_loaded_in_the_build(project: Project) -> None:
    named = changed(project, plugins=["other", "customcopy"])
    arguments = recipe.build_arguments(named, project.targets["embedded"], EMBEDDED)
    assert arguments["PLUGIN_LIBS"] == f"{OTHER}:{PLUGIN}"


def test_gpus_are_listed_as_cmake_has_lists(project: Project) -> None:
    target = Target.model_validate({"cuda_architectures": ["90-real", "120"], "cuda": "OFF"})
    arguments = recipe.build_arguments(project, target, EMBEDDED)
    assert (arguments["CUDA_ARCHITECTURES"], arguments["DALI_PLUGIN_CUDA"]) == ("90-real;120", "OFF")


def test_parts_go_to_their_trial(project: Project) -> None:
    made = recipe.parts(project, "embedded", EMBEDDED)
    assert made["output"] == [f"type=local,dest={project.root}/.builder/embedded/parts.trial"]
    assert (made["target"], made["platforms"]) == ("artifacts", ["linux/amd64"])
    assert made["contexts"] == {
        "package": str(package.ROOT),
        "lock": f"{project.root}/.builder/embedded/lock",
        "debian": "docker-image://debian:12",
    }
    assert made["args"]["DEBIAN_IMAGE"] == "debian"
    assert made["dockerfile-inline"] == (package.ROOT / "Dockerfile").read_text()


def test_an_inventory_is_of_today_s_packages(project: Project) -> None:
    made = recipe.inventory(project, "embedded", EMBEDDED, project.root / "x")
    assert made["output"] == [f"type=local,dest={project.root}/x"]
    text = made["dockerfile-inline"]
    # Every stage that installs Debian's packages for the target is run again.
    installing = re.findall(r" AS (\S+)$(?:(?!^FROM).*\n)*?.*/run/install/apt ", text, re.MULTILINE)
    assert set(made["no-cache-filter"]) == set(installing) - {"registry"}


def test_the_embedded_base_is_the_same_whatever_the_revision_is(project: Project) -> None:
    made = recipe.embedded(project, "embedded", EMBEDDED, "base:1")
    assert made["target"] == "embedded"
    assert made["args"]["SOURCE_DATE_EPOCH"] == "0"
    assert "labels" not in made
    [output] = made["output"]
    assert output.startswith("type=image,name=base:1,")


def test_another_embedded_base_has_another_name(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(project: Project = project, target: str = "embedded", debian: Base = DEBIAN) -> str:
        return recipe.embedded_name(project, target, Bases(debian=debian))

    first = name()
    assert first == name()
    assert re.fullmatch(rf"triton-dali-builder/embedded:{re.escape(DEFAULT_DALI)}-[0-9a-f]{{12}}", first)
    names = {first, name(debian=Base("debian:12", None)), name(debian=Base("debian:13", DEBIAN.digest))}
    newer = changed(project, targets={"newer": {"dali": "2.1.1"}})
    names.add(name(newer, "newer"))
    folder = recipe.lock_folder(project, "embedded")
    folder.mkdir(parents=True)
    for text in ("libc6=1\n", "libc6=2\n"):
        (folder / "debian").write_text(text)
        names.add(name())
    (folder / "debian").unlink()
    assert name() == first
    (project.root / "Dockerfile").write_text("FROM mine\n")
    names.add(name())
    assert len(names) == 7
    # Of another release of this program.
    shipped = project.root / "shipped"
    (shipped / "embedded").mkdir(parents=True)
    (shipped / "builder").mkdir()
    parser = shipped / "builder" / "dali_proto.py"
    parser.write_text("1\n")
    monkeypatch.setattr(package, "ROOT", shipped)
    names.add(name())
    parser.write_text("2\n")
    names.add(name())
    (shipped / "embedded" / "dali.pth").write_text("x\n")
    names.add(name())
    assert len(names) == 10


def test_layers_are_made_on_a_husk_and_stay_in_a_layout(project: Project) -> None:
    made = recipe.layers(project, "embedded", EMBEDDED, "oci-layout://x", HERE, project.root / "x")
    whole = recipe.image(project, parts(plugin()), EMBEDDED, HERE, {"a": "b"})
    husk = made["args"]["SERVED_ON"]
    assert made["args"] == {**whole["args"], "SERVED_ON": husk}
    assert made["contexts"] == {**whole["contexts"], husk: "oci-layout://x"}
    [output] = made["output"]
    assert output.startswith(f"type=oci,tar=false,dest={project.root}/x,")
    assert made["target"] == "runtime"
    assert "no-cache-filter" not in made
    again = recipe.layers(project, "embedded", EMBEDDED, "oci-layout://x", HERE, project.root / "x", no_cache=True)
    assert again == {**made, "no-cache-filter": ["runtime"]}
    # What the layers lie on is one argument, and nothing else takes it.
    assert re.findall(r"^(?!#).*SERVED_ON.*$", made["dockerfile-inline"], re.MULTILINE) == [
        "ARG SERVED_ON=triton",
        "FROM ${SERVED_ON} AS runtime",
    ]


def test_a_project_s_own_dockerfile_is_built(project: Project) -> None:
    (project.root / "Dockerfile").write_text("FROM mine\n")
    assert recipe.parts(project, "embedded", EMBEDDED)["dockerfile-inline"] == "FROM mine\n"


@pytest.mark.parametrize(
    ("made", "listed", "libraries"),
    [
        ((), (), ()),
        ((OTHER, PLUGIN), (), (PLUGIN, OTHER)),
        ((PLUGIN, OTHER), ("other", "customcopy"), (OTHER, PLUGIN)),
        ((PLUGIN, OTHER), ("other",), (OTHER,)),
    ],
)
def test_libraries_are_all_by_name_or_those_that_are_named_in_their_order(
    project: Project, made: tuple[str, ...], listed: tuple[str, ...], libraries: tuple[str, ...]
) -> None:
    built = parts(*map(plugin, made))
    assert recipe.plugins(changed(project, plugins=listed), built) == libraries


@pytest.mark.parametrize(
    ("plugins", "arguments", "command"),
    [
        ((), [], ["tritonserver", "--model-repository=/models"]),
        (
            (PLUGIN, OTHER),
            ["--log-verbose=1"],
            [
                "tritonserver",
                "--model-repository=/models",
                f"--backend-config=dali,plugin_libs={PLUGIN}:{OTHER}",
                "--log-verbose=1",
            ],
        ),
    ],
)
def test_the_server_is_told_its_libraries_once(
    project: Project, plugins: tuple[str, ...], arguments: list[str], command: list[str]
) -> None:
    assert recipe.command(changed(project, server_args=arguments), plugins) == command


def test_an_image_s_dockerfile_ends_with_its_own_command(project: Project) -> None:
    told = changed(project, server_args=['--x="a b"', "${HOME}"])
    made = recipe.image(told, parts(plugin()), EMBEDDED, HERE, {"a": "b"})
    *_, stage, command = made["dockerfile-inline"].splitlines()
    assert stage == f"FROM runtime AS {made['target']}"
    assert json.loads(command.removeprefix("CMD ")) == recipe.command(told, (PLUGIN,))
    assert made["args"]["SOURCE_DATE_EPOCH"] == "1700000000"
    assert made["labels"] == {"a": "b"}
    assert made["dockerfile-inline"].startswith((package.ROOT / "Dockerfile").read_text())
    assert all("dest=" not in output and "name=" not in output for output in made["output"])


def test_the_shipped_dockerfile_has_the_stages_that_are_built(project: Project) -> None:
    text = (package.ROOT / "Dockerfile").read_text()
    assert all(
        f" AS {stage}\n" in text for stage in ("package", "lock", "embedded", "inventory-alone", "artifacts", "runtime")
    )
    # Plain docker's command is the one that a build gives the shipped example.
    [line] = [line for line in text.splitlines() if line.startswith('CMD ["tritonserver"')]
    assert json.loads(line.removeprefix("CMD ")) == recipe.command(project, (PLUGIN,))


@pytest.mark.parametrize(
    ("source", "remote", "label"),
    [
        ("", "https://user:secret@example.com/team/x.git", "https://example.com/team/x.git"),
        ("", "https://token@example.com/team/x.git", "https://example.com/team/x.git"),
        ("", "ssh://user:secret@example.com/team/x", "ssh://example.com/team/x"),
        ("", "git@example.com:team/x.git", "git@example.com:team/x.git"),
        ("https://example.com/mine", "https://example.com/x.git", "https://example.com/mine"),
        ("", "", None),
    ],
)
def test_the_source_is_an_address_without_a_user(project: Project, source: str, remote: str, label: str | None) -> None:
    made = recipe.labels(changed(project, source=source), parts(plugin()), EMBEDDED, Revision("c0ffee", 0, remote))
    assert made.get(OCI + "source") == label


def test_labels_tell_what_the_image_is_made_of(project: Project) -> None:
    made = recipe.labels(project, parts(plugin(), plugin(OTHER)), EMBEDDED, Revision("", 0, ""))
    assert made[OURS + "plugins"] == f"{PLUGIN}@sha256:{'d' * 64} {OTHER}@sha256:{'d' * 64}"
    assert (made[OURS + "dali.version"], made[OURS + "triton.version"]) == ("1.53.0", "24.10")
    assert (made[OCI + "base.digest"], made[OCI + "base.name"]) == (DIGEST, "debian:12")
    assert OCI + "revision" not in made
    assert OCI + "base.digest" not in recipe.labels(project, parts(), Bases(debian=Base("debian:12", None)), HERE)
