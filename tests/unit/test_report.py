"""`report`: what it finds out of a build's records, and what it makes a picture of."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builder import journal
from builder.artifacts import BUCKETS_PER_DECADE, Latency, Layer, Verification, buckets
from builder.errors import BadUsage, BuildUnknown
from builder.journal import Entry, Step
from builder.project import Project
from builder.steps import report
from builder.views.report import Told, changes, latency, layers, materials, page, timeline, words
from builder.views.report.picture import Picture, round_steps, shares

from . import attested
from .built import labels, parts_of
from .conftest import Run, document
from .records import image, pushed, verification

WHEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
HOSTILE = "</style><script>alert(1)</script>\"'&"
PROJECT = 'repository = "localhost:5000/mydali"\n[targets.embedded]\n[targets.ngc]\ntriton_image = "nvcr.io/x:1"\n'


def step(stage: str, began: float, seconds: float, **more: Any) -> Step:
    return Step(title=f"{stage} 1/2  do it", stage=stage, began=began, seconds=seconds, **more)


def build(hours: int = 0, **more: Any) -> Entry:
    """One that went through, `hours` after the first."""
    when = WHEN + timedelta(hours=hours)
    told = {
        "id": f"{when:%Y%m%dT%H%M%S}-aaaaaa",
        "when": when.isoformat(),
        "project": "/project",
        "repository": "localhost:5000/mydali",
        "target": "embedded",
        "digest": DIGEST,
        "base_layers": 1,
        "layers": (
            Layer(digest="sha256:" + "1" * 64, bytes=2_000_000_000),
            Layer(digest="sha256:" + "2" * 64, bytes=9),
        ),
        "bytes": 1,
        "sources": {"plugin": "x", "plugin/one.cc": "1", "model_repository/m/1/dali.py": "2"},
        "seconds": 20.0,
        "steps": (step("plugins", 1, 9), step("models", 10, 5), step("pip", 0, 0, cached=True)),
    }
    return Entry.model_validate({**told, **more})


# Latency


@given(st.lists(st.floats(1e-3, 1e6), min_size=1))
@example([1.0])
@example([10.0, 100.0])
def test_every_time_is_in_one_bucket_and_below_its_edge(times: list[float]) -> None:
    found = buckets(times)
    assert sum(count for _, count in found) == len(times)
    assert [upper for upper, _ in found] == sorted({upper for upper, _ in found})
    width = 10 ** (1 / BUCKETS_PER_DECADE)
    assert found[-1][0] / width * 0.999 < max(times) < found[-1][0] * 1.001
    assert found[0][0] / width * 0.999 < min(times) < found[0][0] * 1.001


def test_an_edge_belongs_to_its_bucket_and_no_time_is_too_short_for_one() -> None:
    assert buckets([1.0, 10.0, 10.0]) == ((1.0, 1), (10.0, 2))
    assert buckets([0.0, 1e-9]) == ((0.001, 2),)
    assert buckets([]) == ()


def test_a_histogram_has_a_bar_for_each_bucket_and_both_percentiles() -> None:
    shown = latency.picture(
        "m", Latency(p50=0.365, p99=1.888, histogram=buckets([0.3, 0.35, 0.36, 0.4, 1.9]))
    ).__html__()
    svg = ElementTree.fromstring(shown)
    assert len(svg.findall("rect")) == 5
    assert {"p50 0.365 ms", "p99 1.89 ms"} <= {each.text for each in svg.findall("text")}
    assert svg.findtext("title") == "Latency of m: 5 requests, p50 0.365 ms, p99 1.89 ms"


@pytest.mark.parametrize("slowest", [0.01, 1, 7, 1e3, 1e6])
def test_an_axis_has_a_few_round_ticks(slowest: float) -> None:
    shown = latency.picture("m", Latency(p50=0.009, p99=slowest, histogram=buckets([0.009, slowest]))).__html__()
    ticks = [float(each) for each in re.findall(r">([\d.e+]+) ms</text>", shown)]
    assert len(ticks) <= 5
    assert all(f"{each:.0e}"[0] in "1235" for each in ticks)


# Pictures


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=60), st.floats(0.1, 5))
def test_shares_are_the_whole_and_none_is_too_narrow(amounts: list[float], at_least: float) -> None:
    found = shares(amounts, at_least)
    assert math.isclose(sum(found), 100, abs_tol=1e-6)
    assert min(found) >= min(at_least, 50 / len(amounts)) - 1e-6


@given(st.floats(0.001, 1e6))
def test_steps_of_an_axis_are_few_and_round(longest: float) -> None:
    found = list(round_steps(longest))
    assert found[0] == 0
    assert 2 <= len(found) <= 6
    assert found[-1] <= longest * (1 + 1e-6)


def test_a_picture_escapes_what_is_written_in_it() -> None:
    picture = Picture(10, HOSTILE)
    picture.text(0, 0, HOSTILE)
    picture.bar(0, 1, 0, 1, "ran", HOSTILE)
    assert "<script" not in picture.__html__()
    assert [each.text for each in ElementTree.fromstring(picture.__html__()).iter() if each.text] == [HOSTILE] * 3


# The timeline


def test_a_row_is_a_stage_and_what_came_from_the_cache_as_a_whole_is_named() -> None:
    steps = (
        step("plugins", 1, 2),
        step("plugins", 3, 9).model_copy(update={"title": "plugins 2/2  compile the plugins"}),
        step("plugins", 0, 0, cached=True),
        step("pip", 0, 0, cached=True),
        step("", 12, 1).model_copy(update={"title": "load the image"}),
        step("models", 0.5, 1, targets=("ngc",)),
    )
    found = timeline.timeline(build(steps=steps))
    assert [(each.name, each.longest, each.seconds, each.note) for each in found.rows] == [
        ("plugins", "compile the plugins", "11.0 s", "1 cached"),
        ("load the image", "", "1.0 s", ""),
    ]
    assert found.cached_stages == ("pip",)
    assert (found.ran, found.cached_steps) == (3, 2)


def test_a_step_that_failed_is_told_by_more_than_its_colour() -> None:
    [row] = timeline.timeline(build(steps=(step("plugins", 1, 2, error="exit code: 1"),))).rows
    assert (row.failed, row.note) == (True, "failed")
    assert ElementTree.fromstring(row.picture.__html__()).find("svg/path") is not None


def test_phases_share_the_time_and_sum_up_to_the_build_s() -> None:
    steps = (step("plugins", 1, 9), step("toolchain", 2, 4), step("plugins", 5, 0, cached=True), step("mine", 15, 1))
    found = timeline.phases(build(steps=steps, seconds=20))
    assert found == {
        timeline.BETWEEN: 10,
        timeline.phase("plugins"): 7,
        timeline.phase("toolchain"): 2,
        timeline.phase("mine"): 1,
    }
    assert timeline.phase("embedded-dali") == timeline.phase("pip") != timeline.phase("") == timeline.BUILDER


# Layers, changes and materials


def test_layers_are_the_base_s_or_the_project_s_and_new_or_kept() -> None:
    before = build(layers=build().layers[:1])
    assert [(each.of, each.state) for each in layers.rows(build(), before)] == [("base", "kept"), ("project", "new")]
    assert [each.state for each in layers.rows(build(), None)] == ["", ""]
    svg = ElementTree.fromstring(layers.picture(layers.rows(build(), before)).__html__())
    assert svg.findtext("title") == "Layers: base 2.00 GB in 1 layer; this project 9 B in 1 layer"
    assert layers.picture(layers.rows(build(base_layers=2), None)).__html__().count("<rect") == 2


def test_changes_are_by_file_and_by_value() -> None:
    now = build(
        1, sources={"plugin": "y", "plugin/one.cc": "9", "plugin/two.cc": "1"}, versions={"dali": "2.1.1"}, seconds=5
    )
    found = changes.changes(now, build(versions={"dali": "1.53.0"}))
    assert [(each.how, each.name) for each in found.files] == [
        ("removed", "model_repository/m/1/dali.py"),
        ("changed", "plugin/one.cc"),
        ("added", "plugin/two.cc"),
    ]
    values = {each.name: (each.before, each.now, each.how) for each in found.values}
    assert values["build time"] == ("20.0 s", "5.0 s", "\N{MINUS SIGN}15.0 s")
    assert values["dali's version"] == ("1.53.0", "2.1.1", "")
    assert "digest" not in values
    assert found.same_image
    assert (found.layers_kept, found.layers_new, found.layers_gone) == (2, 0, 0)


def test_of_a_failed_build_that_told_no_sources_nothing_is_said() -> None:
    found = changes.changes(build(1, digest="", sources={}, layers=()), build())
    assert (found.files, found.same_image) == ((), False)
    assert [each.name for each in found.values] == ["build time"]


def test_a_build_that_took_much_longer_than_most_is_cut_off() -> None:
    recent = (build(0, seconds=500), *(build(each, seconds=9 + each) for each in range(1, 5)))
    assert changes.picture(recent).__html__().count('class="cut"') == 2
    assert changes.picture(recent[1:]).__html__().count('class="cut"') == 0


def test_materials_are_told_by_kind() -> None:
    [told] = [each for each in attested.statements(attested.BASE_DIGEST) if "cyclonedx" in each.predicate_type]
    found = materials.materials(told.predicate)
    assert materials.by_kind(found) == {
        "Debian package": 2,
        "Python package": 2,
        "server and DALI": 2,
        "model": 1,
        "operating system": 1,
        "plugin library": 1,
        "plugin sources": 1,
    }
    assert ("libc6", "2.36-9+deb12u10") in {(each.name, each.version) for each in found}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.04 s"), (3.21, "3.2 s"), (59.97, "1 min 0 s"), (125, "2 min 5 s"), (7380, "2 h 3 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


# The page


def test_the_policy_allows_this_style_and_this_script_and_nothing_else() -> None:
    html = page(Told(build()))
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy.replace("&#39;", "'")
    assert policy.startswith("default-src &#39;none&#39;;")
    assert not re.search(r"""(src|href)=["'](?!#|data:,)|url\((?!#)|@import|\sstyle=|\son[a-z]+=""", html)


def test_a_page_of_nothing_but_a_build_says_what_is_not_there() -> None:
    html = page(Told(build()))
    assert "built, not verified" in html
    assert "python -m builder smoke --target embedded" in html
    assert "there is none to compare it with" in html
    assert "is no longer here" in html
    assert html == page(Told(build()))


def test_a_page_of_an_image_that_is_told_of_in_full() -> None:
    verified = verification(DIGEST).model_copy(update={"models": (attested.MODEL,)})
    html = page(
        Told(
            build(1),
            before=build(),
            recent=(build(), build(), build(1)),
            verification=verified,
            pushed=pushed(f"localhost:5000/mydali@{DIGEST}"),
            sbom=attested.listed(attested.BASE_DIGEST).predicate,
        )
    )
    for text in ("built and verified", f"localhost:5000/mydali@{DIGEST}", "the record has no histogram", "libgcc-s1"):
        assert text in html
    assert "The image is the same, byte for byte." in html


def test_a_verification_that_did_not_pass_is_no_good_news() -> None:
    assert "verification not passed" in page(Told(build(), verification=verification(DIGEST, passed=False)))


def test_a_failed_build_has_its_error_and_no_layers() -> None:
    error = {"code": "plugin-does-not-compile", "what": HOSTILE, "detail": ["one", "two"]}
    html = page(Told(build(digest="", layers=(), error=error)))
    assert "Why it failed" in html
    assert 'id="layers"' not in html
    assert "one\ntwo" in html
    assert HOSTILE not in html


def test_what_cannot_be_written_as_text_is_no_reason_to_have_no_page() -> None:
    assert "\udc80" not in page(Told(build(findings=({"what": "a\udc80b"},))))


# Which build


@pytest.fixture
def entries(project: Project) -> list[Entry]:
    """The newest first: two images, one twice; a failed build; one of another target; one of another folder."""
    mine = {"project": str(project.root)}
    other = "sha256:" + "b" * 64
    return [
        build(5, **mine, target="ngc", digest="sha256:" + "c" * 64),
        build(4, **mine),
        build(3, **mine, digest="", error={"code": "build-failed"}),
        build(2, **mine),
        build(1, **mine, digest=other),
        build(0, digest="sha256:" + "d" * 64),
    ]


def hours(found: list[Entry]) -> list[int]:
    return [datetime.fromisoformat(each.when).hour - WHEN.hour for each in found]


def test_without_a_name_it_is_the_last_build_of_the_target(entries: list[Entry], project: Project) -> None:
    assert hours(report.choose(entries, project, "embedded", "")) == [4, 3, 2, 1]
    assert hours(report.choose(entries, project, "ngc", "")) == [5]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("20260102T0604", [3, 2, 1]),
        ("aaaa", [4, 3, 2, 1]),
        ("sha256:bb", [1]),
        ("sha256:" + "b" * 64, [1]),
        ("ccc", [5]),
    ],
)
def test_a_build_is_named_by_the_beginning_of_its_id_or_digest(
    entries: list[Entry], project: Project, named: str, expected: list[int]
) -> None:
    assert hours(report.choose(entries, project, "", named)) == expected


@pytest.mark.parametrize("named", ["nothing", "sha256:", "sha256:1"])
def test_no_such_build(entries: list[Entry], project: Project, named: str) -> None:
    with pytest.raises(BuildUnknown, match="begins with"):
        report.choose(entries, project, "", named)


def test_a_build_of_another_folder_is_told_with_its_folder(entries: list[Entry], project: Project) -> None:
    with pytest.raises(BuildUnknown) as raised:
        report.choose(entries, project, "", "ddd")
    assert "-C /project" in raised.value.remedy


def test_a_name_for_several_builds_is_none(entries: list[Entry], project: Project) -> None:
    with pytest.raises(BadUsage, match="several builds"):
        report.choose(entries, project, "", "20260102")


def test_it_is_compared_with_the_last_that_went_through(entries: list[Entry], project: Project) -> None:
    made = report.run(project, report.choose(entries, project, "embedded", ""))
    assert made.file == project.state / "embedded" / "report.html"
    assert made.before == entries[3]
    assert f"<code>{entries[1].id}</code>" in made.file.read_text()


def test_what_is_known_of_the_very_image_is_shown_and_nothing_of_another(project: Project) -> None:
    parts = parts_of(project)
    image(DIGEST, parts=parts.digest, labels=labels(project, parts)).save(project)
    Verification.keep(verification(DIGEST), project)
    pushed(f"localhost:5000/mydali@{DIGEST}").save(project)
    shown = report.run(project, [build()]).file.read_text()
    assert "built and verified" in shown
    assert f"localhost:5000/mydali@{DIGEST}" in shown
    assert "libgcc-s1" in shown
    of_another = report.run(project, [build(digest="sha256:" + "b" * 64)]).file.read_text()
    assert "built, not verified" in of_another
    assert DIGEST not in of_another
    assert "libgcc-s1" not in of_another
    # What the last build left is no longer what the image was made of.
    (project.state / "embedded" / "parts" / "models" / "mydali" / "config.pbtxt").write_text("changed")
    assert "libgcc-s1" not in report.run(project, [build()]).file.read_text()


# The command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(journal.VARIABLE, str(tmp_path / "state"))
    root = tmp_path / "here"
    root.mkdir()
    (root / "builder.toml").write_text(PROJECT)
    return root


def test_the_command_prints_where_the_page_is(run: Run, here: Path) -> None:
    made = build(project=str(here)).save()
    status, out, _ = run("report", "-C", str(here))
    file = here / ".builder" / "embedded" / "report.html"
    assert (status, out) == (0, f"{file}\n")
    assert file.read_text().startswith("<!doctype html>")
    status, out, _ = run("report", made.id[:15], "-C", str(here), "--out", str(here / "x" / "page.html"), "--json")
    assert json.loads(out)["reports"] == [
        {
            "file": str(here / "x" / "page.html"),
            "build": made.id,
            "target": "embedded",
            "digest": DIGEST,
            "compared_with": None,
        }
    ]


def test_all_targets_have_a_page_each(run: Run, here: Path) -> None:
    for target in ("embedded", "ngc"):
        build(project=str(here), target=target, id=f"1-{target}").save()
    _, out, _ = run("report", "-C", str(here), "--target", "all")
    assert [Path(each).parent.name for each in out.split()] == ["embedded", "ngc"]
    status, out, _ = run("report", "-C", str(here), "--target", "all", "--out", "x.html", "--json")
    assert (status, document(out)["error"]["code"]) == (2, "usage")


def test_no_build_is_an_error_with_a_remedy(run: Run, here: Path) -> None:
    status, out, err = run("report", "-C", str(here), "--json")
    error = document(out)["error"]
    assert (status, error["code"]) == (2, "build-unknown")
    assert error["remedy"] == "run `python -m builder build --target embedded` first"
    assert error["what"] in err


def test_a_page_that_cannot_be_written_is_an_error(run: Run, here: Path) -> None:
    build(project=str(here)).save()
    status, out, _ = run("report", "-C", str(here), "--out", str(here / "builder.toml" / "x.html"), "--json")
    assert (status, document(out)["error"]["code"]) == (2, "usage")
