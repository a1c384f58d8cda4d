from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from builder import journal
from builder.artifacts import Image, Latency, Layer, NegativeControl, NotRun, Verification, VerifiedModel
from builder.journal import Step
from builder.oci import Layout
from builder.project import Project
from builder.views import summary

from .entries import entry
from .records import image, parts, plugin, verification
from .test_oci import sha256

COPY_MODELS = "COPY /root-fs/ / # buildkit"
HISTORY: tuple[dict[str, Any], ...] = (
    {"created_by": "debootstrap"},
    {"created_by": COPY_MODELS},
    {"created_by": "ENV A=b", "empty_layer": True},
    {"created_by": COPY_MODELS},
    {"created_by": "COPY /plugins-fs/ / # buildkit"},
    {"created_by": "EXPOSE 8000", "empty_layer": True},
)
DIGESTS = tuple(f"sha256:{number}{'0' * 63}" for number in range(1, 5))
SIZES = (140_600_000, 1_170_000_000, 28_700, 942_100)


def layout(folder: Path, history: tuple[dict[str, Any], ...] = HISTORY, base_layers: int = 2) -> Layout:
    """Of four layers; those of the base are elsewhere."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(content: bytes) -> str:
        (blobs / sha256(content).removeprefix("sha256:")).write_bytes(content)
        return sha256(content)

    own = [add(f"layer {number}".encode()) for number in range(base_layers, 4)]
    config = add(json.dumps({"rootfs": {"diff_ids": DIGESTS}, "history": history}).encode())
    layers = [{"digest": digest} for digest in (*DIGESTS[:base_layers], *own)]
    manifest = add(json.dumps({"config": {"digest": config}, "layers": layers}).encode())
    (folder / "index.json").write_text(json.dumps({"manifests": [{"digest": manifest}]}))
    return Layout(folder)


def made(**changes: Any) -> Image:
    layers = tuple(Layer(digest=digest, bytes=size) for digest, size in zip(DIGESTS, SIZES, strict=True))
    return image("sha256:" + "a" * 64, layers=layers, **changes)


def shown(
    project: Project,
    built: Image,
    before: dict[str, frozenset[str]] | None = None,
    steps: tuple[Step, ...] = (),
    width: int = 200,
) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    of_targets = {built.target: parts(plugin())}
    summary.images(project, [built], of_targets, before or {}, steps, 12.34, console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_own_layers_are_told_by_the_dockerfile_s_words(tmp_path: Path) -> None:
    assert summary.own_layers(layout(tmp_path)) == {DIGESTS[2]: "models", DIGESTS[3]: "libraries"}


def test_a_layer_of_a_dockerfile_of_one_s_own_is_told_in_its_words(tmp_path: Path) -> None:
    lookup = {"created_by": "COPY lookup.json   /etc/ # buildkit"}
    run = {"created_by": "RUN /bin/sh -c pip install " + "x" * 100}
    found = summary.own_layers(layout(tmp_path, (*HISTORY[:2], lookup, run)))
    assert found == {DIGESTS[2]: "COPY lookup.json /etc/", DIGESTS[3]: "RUN /bin/sh -c pip install xxxxxxxxxxxx…"}


def test_a_base_that_tells_less_than_it_has_does_not_matter(tmp_path: Path) -> None:
    assert summary.own_layers(layout(tmp_path, HISTORY[3:])) == {DIGESTS[2]: "models", DIGESTS[3]: "libraries"}


def test_an_image_without_layers_of_its_own_has_none(tmp_path: Path) -> None:
    assert summary.own_layers(layout(tmp_path, base_layers=4)) == {}


def test_layers_are_told_with_their_sizes_and_what_is_new(project: Project) -> None:
    layout(Image.layout(project, "embedded"))
    lines = shown(project, made(), {"embedded": frozenset(DIGESTS[:3])})
    assert lines[:8] == [
        "/models/libcustomcopy.so: CustomCopy (cpu, gpu), compiled against DALI 1.53.0",
        "mydali:embedded  sha256:aaaaaaaaaaaa",
        "  layer             size  what",
        "  100000000000  140.6 MB  base",
        "  200000000000   1.17 GB  base",
        "  300000000000   28.7 kB  models",
        "  400000000000  942.1 kB  libraries  new",
        "  1.31 GB in all; 942.1 kB new",
    ]


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ({}, "  1.31 GB in all; the target's first build here"),
        ({"ngc": frozenset(DIGESTS)}, "  1.31 GB in all; the target's first build here"),
        ({"embedded": frozenset(DIGESTS)}, "  1.31 GB in all; no layer is new"),
    ],
)
def test_without_something_new_no_layer_is_marked(
    project: Project, before: dict[str, frozenset[str]], told: str
) -> None:
    lines = shown(project, made(), before)
    assert told in lines
    assert not any(line.endswith("  new") for line in lines)


def test_without_a_layout_nobody_says_what_layers_are(project: Project) -> None:
    assert "  300000000000   28.7 kB" in shown(project, made())


def test_an_image_whose_base_is_elsewhere_says_so(project: Project) -> None:
    lines = shown(project, made(in_engine=False))
    assert "  1.31 GB in all, compressed; the target's first build here" in lines
    assert any("is not here: `push --untagged` takes it" in line for line in lines)


def step(title: str, seconds: float, **more: Any) -> Step:
    return Step(title=title, stage=title.split()[0], began=0, seconds=seconds, **more)


def test_the_longest_steps_are_told_and_the_others_summed_up(project: Project) -> None:
    ran = tuple(step(f"stage {number}/9  [bold]RUN {number}[/]", number) for number in range(1, 9))
    lines = shown(project, made(), steps=(*ran, step("a 1/1  RUN", 0.0, cached=True)))
    assert lines[lines.index("seconds  step") + 1 :] == [
        *(f"    {number}.0  stage {number}/9  [bold]RUN {number}[/]" for number in (8, 7, 6, 5, 4)),
        "    6.0  3 other steps",
        "   12.3  in all; 1 step from the cache",
    ]


def test_steps_without_a_figure_are_others(project: Project) -> None:
    lines = shown(project, made(), steps=(step("a 1/2  COPY", 0.02), step("a 2/2  RUN", 3)))
    assert lines[-3:] == ["    3.0  a 2/2  RUN", "    0.0  1 other step", "   12.3  in all; 0 steps from the cache"]


def test_steps_are_told_with_their_targets_where_there_are_several(project: Project) -> None:
    steps = (step("a 1/1  RUN", 2, targets=("one",)), step("a 1/1  RUN", 1, targets=("two",)))
    lines = shown(project, made(), steps=steps)
    assert lines[-3:-1] == ["    2.0  one: a 1/1  RUN", "    1.0  two: a 1/1  RUN"]
    assert shown(project, made(), steps=steps[:1])[-2] == "    2.0  a 1/1  RUN"


def test_a_step_of_buildx_s_own_is_told_without_its_prefix(project: Project) -> None:
    export = Step(title="[one_layers] exporting to image", stage="", targets=("one",), began=0, seconds=2)
    assert shown(project, made(), steps=(export,))[-2] == "    2.0  exporting to image"
    both = (export, step("a 1/1  RUN", 1, targets=("two",)))
    assert shown(project, made(), steps=both)[-3] == "    2.0  one: exporting to image"


def test_many_layers_of_a_base_that_stays_are_one_row(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_BASE_LAYERS", 1)
    layout(Image.layout(project, "embedded"))
    own = ["  300000000000   28.7 kB  models", "  400000000000  942.1 kB  libraries"]
    for before in ({}, {"embedded": frozenset(DIGESTS)}):
        assert shown(project, made(), before)[3:6] == ["  2 layers       1.31 GB  base", *own]
    # A new one is told, and then there are not many.
    lines = shown(project, made(), {"embedded": frozenset(DIGESTS[1:])})
    assert lines[3:5] == ["  100000000000  140.6 MB  base       new", "  200000000000   1.17 GB  base"]


def test_a_build_without_steps_has_its_time_all_the_same(project: Project) -> None:
    assert shown(project, made())[-1] == "   12.3  in all"


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_breaks_no_line(project: Project, width: int) -> None:
    layout(Image.layout(project, "embedded"))
    lines = shown(project, made(), {"embedded": frozenset()}, (step("a 1/1  " + "RUN " * 50, 2),), width)
    table = lines[lines.index("seconds  step") :]
    assert (len(table), max(map(len, table))) == (3, width)
    assert "  400000000000  942.1 kB  libraries  new" in lines


def test_the_build_before_is_the_record_s_or_else_the_journal_s(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(journal.VARIABLE, str(tmp_path))
    assert summary.earlier(project, ["embedded", "ngc"]) == {}
    layers = tuple(Layer(digest=digest, bytes=1) for digest in DIGESTS[:2])
    entry(project.root, 2, "1", layers=layers).save()
    entry(project.root, 1).save()  # it failed
    entry(project.root / "other", 0, "2").save()
    entry(project.root, 0, "3", target="other").save()
    assert summary.earlier(project, ["embedded", "ngc"]) == {"embedded": frozenset(DIGESTS[:2])}
    made().save(project)
    assert summary.earlier(project, ["embedded"]) == {"embedded": frozenset(DIGESTS)}


def proven(**changes: Any) -> Verification:
    model = VerifiedModel(
        name="mydali",
        version="1",
        oracle="identity",
        values_compared=True,
        rtol=0,
        atol=0,
        requests=1234,
        left_out=0,
        latency_ms=Latency(p50=0.512, p99=1.25),
        requests_per_second=2345.6,
    )
    other = model.model_copy(update={"name": "other", "oracle": "signature", "values_compared": False})
    control = NegativeControl(applicable=True, passed=True, evidence="failed to load [customcopy]")
    told = {"models": (model, other), "negative_control": control, "ready_seconds": 1.234, **changes}
    return verification("sha256:" + "a" * 64).model_copy(update=told)


def verified(found: Verification, console: Console) -> list[str]:
    summary.verified([found], console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_verification_is_a_table_of_its_models(console: Console) -> None:
    assert verified(proven(), console) == [
        "mydali:embedded  sha256:aaaaaaaaaaaa  ready after 1.2 s",
        "  model   version  oracle                requests      p50      p99  requests/s",
        "  mydali        1  identity                  1234  0.51 ms  1.25 ms        2346",
        "  other         1  signature, no values      1234  0.51 ms  1.25 ms        2346",
        "  without its plugins it fails: failed to load [customcopy]",
    ]


def test_a_terminal_shows_the_evidence_on_one_line() -> None:
    control = NegativeControl(applicable=True, passed=True, evidence="x" * 200)
    lines = verified(proven(negative_control=control), Console(file=io.StringIO(), width=80, soft_wrap=True))
    assert lines[-1] == f"  without its plugins it fails: {'x' * 47}…"


def test_what_was_not_run_is_told(console: Console) -> None:
    control = NegativeControl(applicable=False, passed=True, evidence="no plugin to take away")
    lines = verified(proven(not_run=(NotRun(name="blur", why="no GPU"),), negative_control=control), console)
    assert lines[-2:] == ["  blur: not run: no GPU", "  no plugin to take away"]
