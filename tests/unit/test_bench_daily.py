"""What `make bench` makes of its measurements: each figure is held against its own round's, and no miss is hidden."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.daily import __main__ as main
from bench.daily import cold, commands, limits, projects, report, wheels
from bench.daily.goals import GOALS, ROWS, Goal, Rounds, verdicts
from bench.daily.picture import limit, picture
from bench.daily.sides import Phase
from bench.daily.spread import Spread, ratios
from bench.daily.warm import Measured

MACHINE = {
    "processor": "A & B <C>",
    "cores": 2,
    "memory_gib": 23.5,
    "system": "Debian",
    "kernel": "6.1",
    "engine": "26.1",
    "buildx": "0.13",
}
OPERATOR = [
    {"ours": 12.0, "rival": 10.0, "floor": 10.0, "ours build": 9.0, "ours smoke": 3.0},
    {"ours": 22.0, "rival": 20.0, "floor": 20.0, "ours build": 18.0, "ours smoke": 4.0},
    {"ours": 11.5, "rival": 12.0, "floor": 10.0, "ours build": 9.0, "ours smoke": 2.5},
]
CONFIG = [{"ours": 6.0, "rival": 3.0}, {"ours": 20.0, "rival": 4.0}, {"ours": 6.9, "rival": 3.0}]
PUSH = [{"ours": 1.0, "rival": 0.5, "bytes": 300_000.0}] * 3


@pytest.fixture
def told() -> dict[str, Any]:
    measured = Measured(
        {"push": PUSH, "operator": OPERATOR, "config": CONFIG},
        {"operator": [Phase("build", "[plugins] a long step", 1.0, 5.0), Phase("smoke", "ready [soon]", 2.0, 0.0)]},
    )
    return report.document(measured, MACHINE, when="2026-11-22T21:00:00+00:00", seconds=60.04, loads=[0.1, 1.2])


# --- statistics


def test_a_spread_has_median_extremes_and_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 1.0, 2.0, 4.0, 5.0, 5)


def test_one_value_is_a_spread_without_width() -> None:
    assert Spread.of([0.25]) == Spread(0.25, 0.25, 0.25, 0.25, 0.25, 1)


def test_ratios_are_those_of_each_round() -> None:
    # The median of the ratios is 1, and not that of the medians.
    assert ratios([1.0, 20.0, 3.0], [1.0, 10.0, 6.0]) == [1.0, 2.0, 0.5]
    with pytest.raises(ValueError, match="longer"):
        ratios([1.0], [1.0, 2.0])


# --- verdicts


def judged(measured: dict[str, Rounds]) -> dict[str, tuple[float, bool]]:
    return {f"{each.goal.row} {each.goal}": (each.reached.median, each.met) for each in verdicts(measured)}


def test_a_goal_is_held_against_the_same_round() -> None:
    found = judged({"operator": OPERATOR, "config": CONFIG})
    assert found == {
        "operator ≤ 1.25 times compile + serialize + start + one inference": (1.15, True),
        "config ≤ 0.6 times the row above": (0.6, True),
    }


@pytest.mark.parametrize(("seconds", "met"), [(0.25, True), (0.2501, False)])
def test_a_limit_is_met_up_to_itself(seconds: float, met: bool) -> None:
    assert judged({"help": [{"ours": seconds, "floor": 0.1}]}) == {"help ≤ 0.25 s": (seconds, met)}


def test_what_has_no_counterpart_is_not_judged_by_it() -> None:
    assert judged({"config": CONFIG}) == {}
    assert judged({"config": CONFIG, "operator": OPERATOR[:1]}).keys() == {
        "operator ≤ 1.25 times compile + serialize + start + one inference"
    }


@pytest.mark.parametrize(("compiled", "reached"), [((0.0, 0.0, 0.0), True), ((0.0, 1.0, 0.0), False)])
def test_a_compiler_that_runs_for_a_configuration_is_a_miss(compiled: tuple[float, ...], reached: bool) -> None:
    config = [{**each, "compiled": value} for each, value in zip(CONFIG, compiled, strict=True)]
    found = judged({"operator": OPERATOR, "config": config})
    assert found["config the compiler does not run"][1] is reached


def test_models_are_held_against_proportional_growth() -> None:
    rounds = [{"ours": 51.0, "build 10": 10.0, "build 25": 26.0, "build 50": 51.0}]
    rounds[0] |= {"check 10": 1.0, "check 25": 1.2, "check 50": 2.0}
    assert judged({"models": rounds}) == {
        "models build: ≤ 5 times 10": (5.1, False),
        "models build: ≤ 2 times 25": (round(51 / 26, 4), True),
        "models check: ≤ 5 times 10": (2.0, True),
        "models check: ≤ 2 times 25": (round(2 / 1.2, 4), True),
    }


def test_every_row_has_a_goal_and_every_goal_a_row() -> None:
    assert {goal.row for goal in GOALS} == set(ROWS)
    assert all(goal.of.split(" ")[0] in (*ROWS, "") for goal in GOALS)


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        (Goal("push", "bytes", 1e6, unit="B"), "≤ 1 MB"),
        (Goal("help", "ours", 0.25), "≤ 0.25 s"),
        (Goal("cold", "ours", 1.5, "cold rival"), "≤ 1.5 times cold rival"),
    ],
)
def test_a_goal_says_what_it_asks(goal: Goal, text: str) -> None:
    assert str(goal) == text


# --- the document, the table, the picture


def test_the_document_has_every_round_and_every_ratio(told: dict[str, Any]) -> None:
    assert json.loads(json.dumps(told)) == told
    assert [row["row"] for row in told["rows"]] == ["operator", "config", "push"]
    operator = told["rows"][0]
    assert operator["figures"]["ours"]["rounds"] == [12.0, 22.0, 11.5]
    assert operator["ratios"]["to rival"]["rounds"] == [1.2, 1.1, round(11.5 / 12, 4)]
    assert operator["ratios"]["to floor"]["median"] == 1.15
    assert told["met"] is True


def test_one_miss_is_a_miss_of_the_whole() -> None:
    measured = Measured({"help": [{"ours": 9.0, "floor": 0.1}], "push": PUSH})
    told = report.document(measured, MACHINE, when="", seconds=1, loads=[0, 0])
    assert told["met"] is False
    assert "**(missed)**" in report.summary(told)


def test_the_table_tells_where_the_time_went(told: dict[str, Any]) -> None:
    text = StringIO()
    report.show(told, Console(file=text, width=200))
    shown = text.getvalue()
    assert "9.00 s  ours build" in shown
    assert "5.00 s  build: [plugins] a long step (from 1.00 s on)" in shown
    assert "at  2.00 s  smoke: ready [soon]" in shown
    assert "0.300 MB" in shown


def test_the_summary_is_a_table_and_names_the_machine(told: dict[str, Any]) -> None:
    lines = report.summary(told).splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "2 cores of A & B <C>, 24 GiB, Debian, Linux 6.1, Docker 26.1, buildx 0.13" in lines[-1]
    assert lines[-1].startswith("Medians of 3 rounds")


def test_the_picture_is_well_formed_and_has_every_row(told: dict[str, Any]) -> None:
    drawn = ElementTree.fromstring(picture(told))
    texts = [each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {ROWS["operator"], ROWS["config"], ROWS["push"]} <= set(texts)
    assert texts.count("reached") == 3
    assert "missed" not in texts
    numbers = re.findall(r'c?x="(-?[\d.]+)"', picture(told))
    assert all(0 <= float(number) <= 1000 for number in numbers)


def test_a_picture_s_limit_is_the_strictest_of_its_row(told: dict[str, Any]) -> None:
    operator, config, push = told["rows"]
    assert limit(operator, told) == pytest.approx(1.25 * 10)
    assert limit(config, told) == pytest.approx(0.6 * 12)
    assert limit(push, told) == 1.5  # and not the bytes


# --- the projects


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return projects.ours(tmp_path / "ours", "localhost:5000/bench")


def test_a_change_is_one_line_each_time_another(example: Path) -> None:
    path = example / projects.OPERATOR
    versions = [path.read_text()]
    for number in (7, 8):
        projects.change_operator(example, number)
        versions.append(path.read_text())
    for before, after in itertools.pairwise(versions):
        changed = [one != other for one, other in zip(before.splitlines(), after.splitlines(), strict=True)]
        assert sum(changed) == 1


def test_a_changed_configuration_grows_no_longer_each_time(example: Path) -> None:
    path = example / projects.CONFIG
    projects.change_configuration(example, 1)
    first = path.read_text()
    projects.change_configuration(example, 2)
    assert path.read_text() == first.replace("# round 1", "# round 2")


def test_three_targets_need_no_image_of_nvidia(tmp_path: Path) -> None:
    from builder.project import load

    project = load(projects.ours(tmp_path / "three", "localhost:5000/bench", targets=True))
    assert len(project.targets) == 3
    assert all(target.is_embedded for target in project.targets.values())
    assert str(project.home) == "localhost:5000/bench"


def test_many_models_are_a_project_without_mistakes(tmp_path: Path) -> None:
    from builder.project import load
    from builder.steps import check

    project = load(projects.many(tmp_path / "many", "localhost:5000/bench", 3))
    assert len(project.models) == 3
    assert not [each for each in check.before_build(project, project.targets) if each.severity == "error"]


def test_the_rival_makes_its_base_as_the_project_does(tmp_path: Path) -> None:
    text = (projects.rival(tmp_path / "rival", with_base=True) / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE)
    assert stages.index("embedded") < stages.index("toolchain") < stages.index("served")
    assert len(stages) == len(set(stages))
    assert "FROM ${SERVED_ON}" not in text


def test_the_rival_serves_what_the_project_serves() -> None:
    ours, theirs = ((folder / "Dockerfile").read_text() for folder in (projects.ROOT, projects.RIVAL))
    command = re.search(r'^CMD \["tritonserver".*$', theirs, re.MULTILINE)
    assert command
    assert command.group() in ours


# --- the rest


def test_what_was_downloaded_stays_and_what_was_compiled_does_not() -> None:
    def record(folder: str, kind: str = "exec.cachemount") -> dict[str, str]:
        return {"Type": kind, "Description": f"cached mount {folder} from exec /bin/sh -c set -e"}

    assert cold.is_download(record("/root/.cache/pip"))
    assert cold.is_download(record("/var/cache/apt"))
    assert not cold.is_download(record("/objects"))
    assert not cold.is_download(record("/root/.cache/pip", "regular"))


def test_packages_have_the_names_that_an_index_gives_them() -> None:
    assert wheels.normalized("nvidia_CUDA.nvcc") == "nvidia-cuda-nvcc"


def test_no_round_begins_that_would_end_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    done = []
    for number in limits.Limit(100, began=0.0).rounds(5, "x"):
        done.append(number)
        now[0] += 40
    assert done == [0, 1]


def test_a_command_tells_when_it_said_what() -> None:
    script = "import sys, time; print('a', file=sys.stderr, flush=True); time.sleep(0.2); print('b', file=sys.stderr)"
    ran = commands.run([sys.executable, "-c", f"{script}; print('out')"])
    (first, one), (second, other) = ran.said
    assert (one, other, ran.stdout) == ("a", "b", "out\n")
    assert first + 0.15 < second <= ran.seconds + 0.001


def test_a_command_that_fails_is_no_figure() -> None:
    with pytest.raises(commands.CommandFailed, match=r"exit status 3.*\nno"):
        commands.run([sys.executable, "-c", "import sys; print('no', file=sys.stderr); sys.exit(3)"])


def test_rows_are_chosen_by_their_names() -> None:
    assert main._rows("help,build") == ["help", "build"]
    with pytest.raises(argparse.ArgumentTypeError, match="no such row: helf"):
        main._rows("helf")
    with pytest.raises(argparse.ArgumentTypeError):
        main._positive("0")
