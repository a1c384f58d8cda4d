"""`clean`: what may go, decided without an engine."""

from __future__ import annotations

import io
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder import journal
from builder import project as projects
from builder.docker import present, storage
from builder.docker.storage import BuildCache, StoredImage
from builder.errors import MachineError
from builder.project import Project
from builder.steps import clean
from builder.steps.clean import Group, Home, Item, Plan, Rules, of_images, plan, stays_by

from . import built
from .conftest import Run, document
from .entries import NOW, digest, entry
from .records import image, parts, pushed

WEEK = timedelta(days=7)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


def item(name: str, days: float | None = 10, **changes: Any) -> Item:
    used = None if days is None else NOW - timedelta(days=days)
    values: dict[str, Any] = {"parts": {name: 10}, **changes}
    return Item(values.pop("group", Group.IMAGES), name, name, used, **values)


def names(planned: Plan) -> list[str]:
    return [each.name for each in planned.goes]


# The plan.


def test_nothing_goes_unless_something_asks_for_it() -> None:
    planned = plan([item("a"), item("b")], Rules(all=True), NOW)
    assert (names(planned), planned.frees, planned.holds) == ([], 0, 20)


def test_what_is_older_goes_the_oldest_first() -> None:
    found = [item("young", 6.9), item("old", 8), item("older", 9), item("ageless", None)]
    planned = plan(found, Rules(older_than=WEEK), NOW)
    assert names(planned) == ["older", "old"]
    assert [(each.name, why) for each, why in planned.stays] == [
        ("young", "younger"),
        ("ageless", "nobody knows how old it is"),
    ]


def test_down_to_a_size_goes_no_more_than_must() -> None:
    found = [item("a", 1), item("b", 2), item("c", 3)]
    assert names(plan(found, Rules(to=30), NOW)) == []
    assert names(plan(found, Rules(to=29), NOW)) == ["c"]
    assert names(plan(found, Rules(to=10), NOW)) == ["c", "b"]
    assert names(plan(found, Rules(to=0), NOW)) == ["c", "b", "a"]


def test_what_is_kept_stays_however_little_room_there_is() -> None:
    found = [item("a", kept="a container uses it"), item("b")]
    planned = plan(found, Rules(to=0, older_than=timedelta(), all=True), NOW)
    assert names(planned) == ["b"]
    assert planned.frees == 10


def test_the_last_builds_of_a_target_stay() -> None:
    found = [item(str(rank), 10 + rank, rank=rank) for rank in (1, 2, 3)]
    assert names(plan([*found, item("left", group=Group.TRIALS)], Rules(keep=2), NOW)) == ["3", "left"]


def test_an_image_whose_place_nobody_knows_goes_by_its_age_alone() -> None:
    one = item("of-no-build")
    assert stays_by(one, Rules(keep=1), NOW).startswith("nobody knows its place")
    assert stays_by(one, Rules(keep=1, older_than=WEEK), NOW) == ""
    assert stays_by(one, Rules(keep=1, to=0), NOW) == ""


def test_all_that_is_asked_for_has_to_hold() -> None:
    found = [item("a", 1, rank=3), item("b", 10, rank=3), item("c", 20, rank=1), item("d", 30, rank=3)]
    assert names(plan(found, Rules(older_than=WEEK, keep=2), NOW)) == ["d", "b"]
    assert names(plan(found, Rules(older_than=WEEK, keep=2, to=30), NOW)) == ["d"]


def test_other_projects_neither_go_nor_count_unless_they_are_meant() -> None:
    found = [item("mine", 1), item("theirs", 20, wide=True)]
    narrow, wide = plan(found, Rules(to=10), NOW), plan(found, Rules(to=10, all=True), NOW)
    assert (names(narrow), narrow.holds) == ([], 10)
    assert (names(wide), wide.holds) == (["theirs"], 20)


@pytest.mark.parametrize("group", [Group.GONE, Group.RECORDS, Group.HISTORY])
def test_records_go_by_their_age_or_for_room_but_not_as_builds(group: Group) -> None:
    one = item("x", group=group, rank=5)
    assert stays_by(one, Rules(keep=1), NOW) == "goes by its age"
    assert stays_by(one, Rules(keep=1, older_than=WEEK), NOW) == ""
    assert stays_by(one, Rules(to=0), NOW) == ""


def test_what_two_share_is_free_only_when_both_are_gone() -> None:
    found = [item("a", 9, parts={"base": 100, "a": 1}), item("b", 8, parts={"base": 100, "b": 2})]
    assert plan(found, Rules(to=102), NOW).frees == 1
    whole = plan(found, Rules(to=0), NOW)
    assert (whole.holds, whole.frees) == (103, 103)
    # Another one, which is not ours, lies on it.
    assert plan(found, Rules(to=0), NOW, pinned={"base"}).frees == 3


LAYERS = st.dictionaries(st.sampled_from("abcdef"), st.just(7), min_size=1)


@given(
    found=st.lists(st.tuples(LAYERS, st.integers(0, 20), st.booleans(), st.booleans()), max_size=8),
    to=st.integers(0, 60),
    pinned=st.sets(st.sampled_from("abcdef")),
)
def test_what_gets_free_is_what_nothing_that_stays_needs(
    found: list[tuple[dict[str, int], int, bool, bool]], to: int, pinned: set[str]
) -> None:
    items = [
        item(str(number), days, parts=layers, kept="x" if kept else "", wide=wide)
        for number, (layers, days, kept, wide) in enumerate(found)
    ]
    planned = plan(items, Rules(to=to), NOW, pinned)
    before = {part for each in items for part in each.parts} | pinned
    after = {part for each, _ in planned.stays for part in each.parts} | pinned
    assert planned.frees == 7 * len(before - after)
    assert len(planned.goes) + len(planned.stays) == len(items)
    assert not any(each.kept or each.wide for each in planned.goes)
    if any(why == "there is room enough" for _, why in planned.stays):
        assert planned.holds - planned.frees <= to


# Which images.


def stored(name: str, character: str, **changes: Any) -> StoredImage:
    values: dict[str, Any] = {
        "id": digest(character),
        "names": (name,) if name else (),
        "tags": (name,) if name else (),
        "labels": {},
        "tagged": NOW - timedelta(days=10),
        "layers": {"debian": 1, "base": 2, character: 3},
        **changes,
    }
    return StoredImage(**values)


@pytest.fixture
def labels(project: Project) -> dict[str, str]:
    return built.labels(project, built.parts_of(project))


def by_id(images: list[Item]) -> dict[str, Item]:
    return {each.key[-1]: each for each in images}


def home_of(project: Project, **changes: Any) -> Home:
    values = {
        "repository": project.repository,
        "targets": frozenset({"embedded"}),
        "deployed": frozenset(),
        "built": {},
    }
    return Home(**{**values, **changes})


def test_of_this_project_s_images_those_stay_that_something_needs(project: Project, labels: dict[str, str]) -> None:
    images = [
        stored("mydali:embedded", "a", labels=labels),
        stored("", "b", labels=labels),
        stored("", "c", labels=labels, containers=("serving",)),
        stored("", "d", labels=labels),
        stored("", "e", labels=labels),
        stored("mine:1", "f", labels=labels),
        stored("debian:12", "0"),
        stored("", "1"),
    ]
    known = home_of(project, deployed=frozenset({digest("d")}), built={digest("e"): "the last build of target x"})
    found = by_id(of_images(images, project, [known], [], NOW))
    assert {each: one.kept for each, one in found.items()} == {
        "a": "the last build of target embedded",
        "b": "",
        "c": "the container serving is made of it",
        "d": "localhost:5000/mydali deploys it",
        "e": "the last build of target x",
        "f": "it is also mine:1",
    }
    assert {one.group for one in found.values()} == {Group.IMAGES}


def test_images_of_other_projects_are_told_apart(project: Project, labels: dict[str, str]) -> None:
    other = project.model_copy(update={"repository": "localhost:5000/other"})
    found = by_id(of_images([stored("mydali:embedded", "a", labels=labels)], other, [home_of(other)], [], NOW))
    assert (found["a"].group, found["a"].wide) == (Group.OTHERS, True)
    # Nobody knows where that project is: its last build may be wanted there.
    assert found["a"].kept == "the last build of target embedded"
    # Its folder was here, and is gone.
    gone = entry(project.root / "gone", 3, "a")
    found = by_id(of_images([stored("mydali:embedded", "a", labels=labels)], other, [home_of(other)], [gone], NOW))
    assert found["a"].kept == ""


def test_what_is_deployed_stays_where_the_engine_knows_it_by_its_configuration(
    project: Project, labels: dict[str, str]
) -> None:
    name = f"localhost:5000/mydali@{digest('9')}"
    images = [stored("", "a", names=(name,), labels=labels)]
    known = home_of(project, deployed=frozenset({digest("9")}))
    assert by_id(of_images(images, project, [known], [], NOW))["a"].kept == "localhost:5000/mydali deploys it"


def test_what_a_running_command_has_just_made_stays(project: Project, labels: dict[str, str]) -> None:
    young, old = NOW - timedelta(minutes=59), NOW - timedelta(minutes=61)
    base = "triton-dali-builder/embedded:1.53.0-0123456789ab"
    images = [
        stored("mydali:embedded_load", "a", labels=labels, tagged=young),
        stored("mydali:embedded_load", "b", labels=labels, tagged=old),
        stored("mydali:embedded_rebase", "c", labels=labels, tagged=None, created=young),
        stored(base, "d", tagged=young, layers={"d": 1}),
        stored(base, "e", tagged=old, layers={"e": 1}),
        stored("", "f", labels=labels, tagged=young),
    ]
    found = by_id(of_images(images, project, [home_of(project)], [], NOW))
    assert {each for each, one in found.items() if one.kept} == {"a", "c", "d"}


def test_a_target_that_is_no_more_keeps_no_image(project: Project, labels: dict[str, str]) -> None:
    known = home_of(project, targets=frozenset({"ngc"}))
    assert by_id(of_images([stored("mydali:embedded", "a", labels=labels)], project, [known], [], NOW))["a"].kept == ""


def test_a_base_stays_with_what_lies_on_it(project: Project, labels: dict[str, str]) -> None:
    base = stored("triton-dali-builder/embedded:1.53.0-0123456789ab", "b", tagged=None, layers={"debian": 1, "base": 2})
    debian = stored("triton-dali-builder/debian:bookworm", "d", layers={"debian": 1})
    other = stored("triton-dali-builder/embedded:2.1.1-0123456789ab", "e", layers={"debian": 1, "base2": 2})
    last = stored("mydali:embedded", "a", labels=labels, tagged=NOW)
    found = by_id(of_images([base, debian, other, last], project, [home_of(project)], [], NOW))
    assert found["b"].kept == found["d"].kept == "the base of mydali:embedded"
    assert found["e"].kept == ""
    assert found["d"].wide
    assert not found["b"].wide
    # It was used when that was made.
    assert found["b"].used == NOW
    assert (found["b"].rank, found["e"].rank) == (1, 2)


def test_a_base_that_lost_its_name_is_known_by_the_builds_on_it(project: Project) -> None:
    lost = stored("", "b")
    on_it = entry(project.root, 3, "a", base="triton-dali-builder/embedded:1.53.0-0123456789ab", base_digest=lost.id)
    [found] = of_images([lost], project, [], [on_it], NOW)
    assert (found.group, found.used) == (Group.BASES, NOW - timedelta(days=3))
    assert (
        of_images([lost], project, [], [on_it.model_copy(update={"base": "nvcr.io/nvidia/tritonserver:1"})], NOW) == []
    )


def test_builds_are_ranked_by_target_and_image(project: Project, labels: dict[str, str]) -> None:
    entries = [entry(project.root, 1, "a"), entry(project.root, 2), entry(project.root, 3, "a")]
    entries += [entry(project.root, 4, "b"), entry(project.root, 5, "c", target="ngc")]
    images = [stored("", each, labels=labels) for each in "abcd"]
    found = by_id(of_images(images, project, [], entries, NOW))
    assert {each: one.rank for each, one in found.items()} == {"a": 1, "b": 2, "c": 1, "d": None}
    assert found["a"].used == NOW - timedelta(days=1)


# What is in folders.


def aged(path: Path, hours: float) -> None:
    """With all that is in it."""
    moment = NOW.timestamp() - hours * 3600
    for each in (path, *path.rglob("*")):
        os.utime(each, (moment, moment))


def written(path: Path, content: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_the_state_is_sorted_by_what_it_is_for(project: Project) -> None:
    image(digest("a"), base_digest=digest("b")).save(project)
    pushed("localhost:5000/mydali@" + digest("c")).save(project)
    state = project.state
    for each in "abc3":
        written(state / "verified" / f"{each * 64}.json")
        written(state / "bases" / f"{each * 64}-linux-amd64.json")
    for name in ("embedded/oci/index.json", "embedded/unpacked/image.json", "embedded/oci.trial/index.json"):
        written(state / name)
    written(state / "gone/image.json")
    written(state / "dev/whatever")
    for name in ("embedded/oci.trial", "embedded/unpacked", "gone"):
        aged(state / name, 2)
    found = {each.name: each for each in clean.of_state(project, NOW)}
    kept = {name for name, each in found.items() if each.kept}
    assert {name for name in found if name.startswith(("verified", "bases")) and name not in kept} == {
        f"verified/{'3' * 64}.json",
        f"bases/{'3' * 64}-linux-amd64.json",
    }
    assert found["embedded/oci"].kept
    assert found["embedded/image.json"].kept
    assert (found["embedded/unpacked"].group, found["embedded/unpacked"].kept) == (Group.UNPACKED, "")
    assert (found["embedded/oci.trial"].group, found["embedded/oci.trial"].kept) == (Group.TRIALS, "")
    assert (found["gone"].group, found["gone"].kept) == (Group.GONE, "")
    assert "dev" not in found
    # A command that runs right now.
    later = {each.name: each for each in clean.of_state(project, NOW - timedelta(hours=1, minutes=30))}
    assert all(later[name].kept for name in ("embedded/oci.trial", "embedded/unpacked", "gone"))


def test_bytes_are_those_on_disk_and_a_link_is_not_followed(tmp_path: Path) -> None:
    large = written(tmp_path / "folder" / "one", "x" * 100_000)
    os.link(large, tmp_path / "folder" / "two")
    (tmp_path / "folder" / "elsewhere").symlink_to("/usr")
    assert 100_000 <= clean._bytes(tmp_path / "folder") < 150_000
    assert clean._bytes(tmp_path / "none") == 0


def test_of_the_history_each_target_s_last_build_stays_while_its_project_does(project: Project) -> None:
    entries = [entry(project.root, 1, "a"), entry(project.root, 2, "b"), entry(project.root / "gone", 3, "c")]
    for each in entries:
        each.save()
    found = list(clean.of_history(entries, project))
    assert [bool(each.kept) for each in found] == [True, False, False]
    assert [each.wide for each in found] == [False, False, True]
    assert [each.rank for each in found] == [1, 2, 1]


def test_what_is_deployed_is_what_env_compose_and_the_last_push_name(project: Project) -> None:
    (project.root / ".env").write_text(f"IMAGE=localhost:5000/mydali@{digest('1')}\n")
    (project.root / "docker-compose.yml").write_text(f"image: x@{digest('2')}\n")
    pushed("localhost:5000/mydali@" + digest("3")).save(project)
    parts().save(project)
    image(digest("4")).save(project)
    [known] = clean._homes(project, [])
    assert known.deployed == {digest("1"), digest("2"), digest("3")}
    assert known.built == {digest("e"): "the base of target embedded", digest("4"): "the last build of target embedded"}


# The command.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "builder.toml").write_text('repository = "localhost:5000/mydali"\n[targets.embedded]\n')
    written(tmp_path / "p" / ".builder/gone/image.json")
    written(tmp_path / "p" / ".builder/embedded/unpacked/rootfs/x")
    written(tmp_path / "p" / ".builder/embedded/oci/index.json")
    written(tmp_path / "p" / ".builder/embedded/parts.json")
    aged(tmp_path / "p" / ".builder", 24 * 60)
    return tmp_path / "p"


def test_without_a_wish_it_only_shows(run: Run, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    status, out, _ = run("clean", "-C", str(folder), "--all")
    assert status == 0
    assert sorted(folder.rglob("*")) == before
    assert str(Group.GONE) in out
    assert "clean --older-than 30d" in out
    assert "no Docker engine answers" in out


def test_a_dry_run_tells_and_leaves(run: Run, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    status, out, _ = run("clean", "-C", str(folder), "--keep", "1", "-n", "--json")
    told = document(out)
    assert status == 0
    assert sorted(folder.rglob("*")) == before
    assert {each["name"] for each in told["goes"]} == {"embedded/unpacked"}
    assert (told["removed"], told["freed"]) == ([], 0)
    assert {each["name"] for each in told["stays"]} == {"gone", "embedded/oci", "embedded/parts.json"}


def test_what_is_asked_for_goes_and_the_rest_stays(run: Run, folder: Path) -> None:
    status, out, _ = run("clean", "-C", str(folder), "--older-than", "7d", "--yes", "--json")
    told = document(out)
    assert status == 0
    assert not (folder / ".builder/gone").exists()
    assert not (folder / ".builder/embedded/unpacked").exists()
    assert (folder / ".builder/embedded/oci/index.json").exists()
    assert told["freed"] == told["frees"] > 0
    assert len(told["removed"]) == 2


def test_old_builds_go_out_of_the_history(run: Run, folder: Path) -> None:
    for days, each in ((1, "a"), (40, "b"), (50, "c")):
        entry(folder, days, each).save()
    run("clean", "-C", str(folder), "--older-than", "45d", "--yes")
    assert [each.digest for each in journal.entries()] == [digest("a"), digest("b")]


def test_nobody_is_asked_where_nobody_is(run: Run, folder: Path) -> None:
    status, _, err = run("clean", "-C", str(folder), "--keep", "1")
    assert status == 2
    assert "--yes" in err
    assert (folder / ".builder/gone").exists()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who answers with Ctrl-D."""
    keyboard = io.StringIO("")
    monkeypatch.setattr(keyboard, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", keyboard)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("more", [[], ["-q"]])
def test_who_is_asked_sees_what_goes_and_the_end_of_his_input_is_a_no(run: Run, folder: Path, more: list[str]) -> None:
    status, out, err = run("clean", "-C", str(folder), "--keep", "1", *more)
    assert status == 0
    assert "embedded/unpacked" in out
    assert "free it?" in err
    assert (folder / ".builder/embedded/unpacked").exists()


def test_a_dry_run_tells_what_of_the_cache_would_go(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, young = (datetime.now(UTC) - timedelta(days=days) for days in (8, 1))
    cache = BuildCache(2, 9_000_000, 9_000_000, 0, ((old, 7_000_000), (young, 2_000_000)))
    monkeypatch.setattr(clean, "look", lambda *_: clean.Found((), cache=cache))
    _, out, _ = run("clean", "-C", str(folder), "--cache", "--dry-run")
    assert "up to 9.0 MB of BuildKit's cache" in out
    _, out, _ = run("clean", "-C", str(folder), "--cache", "--older-than", "7d", "--dry-run", "--json")
    assert document(out)["frees_of_cache"] == 7_000_000
    assert "ages" not in document(out)["build_cache"]


def test_what_was_removed_is_told_even_where_the_engine_fails_afterwards(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise MachineError("it stopped", where="x", remedy="y")

    monkeypatch.setattr(present, "engine", lambda: object())
    files = tuple(clean.of_state(projects.load(folder), datetime.now(UTC)))
    monkeypatch.setattr(clean, "look", lambda *_: clean.Found(files))
    monkeypatch.setattr(storage, "prune_cache", fail)
    status, out, _ = run("clean", "-C", str(folder), "--older-than", "7d", "--cache", "--yes", "--json")
    assert status == MachineError.exit_code
    assert len(document(out)["removed"]) == 2
    assert document(out)["error"]["what"] == "it stopped"


def test_images_that_are_gone_are_told_even_if_the_engine_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> int:
        raise MachineError("it stopped", where="x", remedy="y")

    monkeypatch.setattr(storage, "remove", lambda *_, **__: "")
    monkeypatch.setattr(storage, "layers_bytes", fail)
    one = item(digest("a"))
    engine: Any = object()
    assert clean.carry_out(Plan((one,), (), 10, 10), engine, 10) == clean.Removed((one,), (), 0)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("7d", 604800),
        ("12h", 43200),
        ("2w", 1209600),
        ("30m", 1800),
        ("P7DT12H", 648000),
        ("1d12h", None),
        ("-1d", None),
    ],
)
def test_ages_are_written_as_people_do(run: Run, folder: Path, given: str, seconds: int | None) -> None:
    from builder.commands.clean import _duration

    if seconds is not None:
        assert _duration(given) == timedelta(seconds=seconds)
        return
    status, _, err = run("clean", "-C", str(folder), f"--older-than={given}")
    assert status == 2
    assert "7d, 12h" in err


@pytest.mark.parametrize(("given", "size"), [("20GB", 20_000_000_000), ("1.5GiB", 1_610_612_736), ("0", 0)])
def test_sizes_are_decimal_unless_they_say_otherwise(given: str, size: int) -> None:
    from builder.commands.clean import _size

    assert _size(given) == size


@pytest.mark.parametrize("given", ["x", "-3GB", "20 parsecs"])
def test_what_is_no_size_is_refused(run: Run, folder: Path, given: str) -> None:
    status, _, err = run("clean", "-C", str(folder), f"--to={given}")
    assert status == 2
    assert "20GB" in err
