"""The page of a real build in a real browser: it is all there, readable in any light and on a phone, and alone.

What decides is what Chromium made of the page, by questions asked inside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builder import journal
from builder.artifacts import Latency, Layer, Verification
from builder.docker.engine import Engine
from builder.docker.secrets import from_machine
from builder.journal import Entry, Step
from builder.project import load
from builder.views.report import Told, page

from .browser import Browser, running
from .conftest import ROOT, Project

BROWSER_IMAGE = "triton-dali-builder/browser"
PHONE = {"width": 360, "height": 740}
SECTIONS = ("summary", "timeline", "phases", "layers", "changes", "verification", "latency", "sbom", "findings")
HOSTILE = '</style></title><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"&amp;\u202e'

# Of every text that is shown: what it is, its size, and its contrast to what is under it (WCAG 2.2, 1.4.3).
TEXTS = """
const channel = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
const under = (element) => {
  const found = [];
  for (let each = element; each; each = each.parentElement)
    found.unshift(parse(getComputedStyle(each).backgroundColor));
  return found.reduce((so_far, top) => over(top, so_far), [255, 255, 255]);
};
const told = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
  if (["SCRIPT", "STYLE", "title"].includes(element.tagName)) continue;
  const style = getComputedStyle(element), below = under(element);
  const colour = over(parse(element instanceof SVGElement ? style.fill : style.color), below);
  const [bright, dark] = [light(colour), light(below)].sort((a, b) => b - a);
  told.push([walker.currentNode.data.trim().slice(0, 60), parseFloat(style.fontSize), (bright + 0.05) / (dark + 0.05)]);
}
return told;
"""
# Headings and words in pictures that are not whole: cut off, beyond the window, or over each other.
CUT = """
const cut = [], whole = document.documentElement.clientWidth;
for (const each of document.querySelectorAll("h1, h2, h3, .tiles strong, .tiles span, .verdict")) {
  const box = each.getBoundingClientRect();
  if (each.scrollWidth > Math.ceil(box.width) + 1 || box.left < 0 || box.right > whole + 1) cut.push(each.textContent);
}
for (const svg of document.querySelectorAll("svg")) {
  const words = Array.from(svg.querySelectorAll("text"), (each) => [each.textContent, each.getBoundingClientRect()]);
  const place = (svg.closest("section") ?? document.body).getBoundingClientRect();
  for (const [text, box] of words) {
    if (box.left < place.left || box.right > place.right + 1) cut.push(text);
    for (const [other, its] of words)
      if (text < other && box.left < its.right && its.left < box.right && box.top < its.bottom && its.top < box.bottom)
        cut.push(`${text} over ${other}`);
  }
}
return cut;
"""
WIDTHS = "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
TEXT = "return document.querySelector(arguments[0]).textContent.replace(/\\s+/g, ' ')"


@pytest.fixture(scope="session")
def browser(shipped: Project, engine: Engine, debian: str) -> Iterator[Browser]:
    """Chromium, from Debian's packages in an image of its own."""
    was_there = engine.has_image(BROWSER_IMAGE)
    network = from_machine()
    Project(shipped.root, {**shipped.environment, **network.environment}).docker(
        "build",
        f"--build-arg=DEBIAN_IMAGE={debian}",
        *(f"--build-arg={name}" for name in network.proxies),
        *(f"--secret={secret}" for secret in network.secrets),
        f"--build-context=install={ROOT / 'embedded' / 'install'}",
        f"--tag={BROWSER_IMAGE}",
        str(ROOT / "tests" / "browser"),
    ).ok()
    with running(engine, BROWSER_IMAGE) as started:
        yield started
    if not was_there:
        engine.client.images.remove(BROWSER_IMAGE, force=True)


@dataclass(frozen=True)
class Reported:
    """The shipped project with a journal of three builds: one with others' sources, one that failed, its own."""

    project: Project
    entry: Entry
    failed: Entry
    file: Path


@pytest.fixture(scope="module")
def reported(
    shipped: Project, verified: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reported]:
    """What `report` makes of the build and the verification of the shipped project."""
    entry = _recorded(shipped)
    state = tmp_path_factory.mktemp("state")
    project = Project(shipped.root, {**shipped.environment, journal.VARIABLE: str(state)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(journal.VARIABLE, str(state))
        plugin = next(name for name in entry.sources if name.startswith("plugin/"))
        _before(
            entry,
            hours=2,
            digest="sha256:" + "1" * 64,
            layers=(*entry.layers[:-1], Layer(digest="sha256:" + "2" * 64, bytes=7)),
            sources={**entry.sources, plugin: "0" * 64, "plugin/gone.cu": "3" * 64},
            seconds=2 * entry.seconds,
        )
        broken = Step(
            title="plugins 2/2  compile the plugins", stage="plugins", began=1, seconds=2, error="exit code: 1"
        )
        failed = _before(
            entry,
            hours=1,
            digest="",
            layers=(),
            steps=(*entry.steps[:1], broken),
            error={"code": "plugin-does-not-compile", "what": "it does not compile", "detail": [HOSTILE]},
        )
        entry.save()
        made = project.builder("report", "--json").ok().document["reports"]
        assert [(each["build"], each["digest"]) for each in made] == [(entry.id, entry.digest)]
        yield Reported(project, entry, failed, Path(made[0]["file"]))


def _recorded(shipped: Project) -> Entry:
    """What `build` left in the journal."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shipped.environment.items():
            patch.setenv(name, value)
        mine = (each for each in journal.entries() if Path(each.project) == shipped.root.resolve())
        return next(each for each in mine if each.digest and each.target == "embedded")


def _before(entry: Entry, hours: int, **changes: Any) -> Entry:
    when = datetime.fromisoformat(entry.when) - timedelta(hours=hours)
    return entry.model_copy(update={"id": journal.new_id(when), "when": when.isoformat(), **changes}).save()


@pytest.fixture(params=["light", "dark", "phone", "dark phone"])
def seen(request: pytest.FixtureRequest, browser: Browser, reported: Reported) -> Browser:
    """The page, unfolded."""
    _open(browser, reported.file, request.param)
    return browser


def _open(browser: Browser, file: Path, how: str) -> None:
    browser.open(file, scheme="dark" if "dark" in how else "light", **(PHONE if "phone" in how else {}))
    browser.unfold()


def test_every_section_tells_of_the_build(browser: Browser, reported: Reported) -> None:
    _open(browser, reported.file, "light")
    text: Callable[[str], str] = lambda where: browser.run(TEXT, where)  # noqa: E731
    assert all(browser.run("return Boolean(document.getElementById(arguments[0]))", each) for each in SECTIONS)
    assert reported.entry.digest in text("#summary")
    assert "built and verified" in text("#summary")
    assert any(each.title.endswith("compile the plugins") for each in reported.entry.steps)
    assert all(" ".join(each.title.split()) in text("#timeline table") for each in reported.entry.steps)
    assert reported.entry.layers[-1].digest[7:19] in text("#layers")
    assert "1 layer is new" in text("#changes")
    rows = browser.run("return Array.from(document.querySelectorAll('#changes tr'), (each) => each.innerText)")
    assert any("removed" in each and "plugin/gone.cu" in each for each in rows)
    assert sum("changed" in each and "plugin/" in each for each in rows) == 1
    # The last one of that digest; another test may have proven it again since.
    kept = Verification.of_digest(load(reported.project.root), reported.entry.digest)
    assert kept
    image = kept.model_dump(mode="json")
    [model] = image["models"]
    assert f"{model['requests']:,}".replace(",", "\u00a0") in browser.run(
        "return document.querySelector('#verification table').textContent"
    )
    assert image["negative_control"]["evidence"][:40] in text("#verification")
    assert sum(count for _, count in model["latency_ms"]["histogram"]) >= 20
    assert f"p50 {model['latency_ms']['p50']:.{3 if model['latency_ms']['p50'] < 1 else 2}f} ms" in text("#latency svg")
    assert "Debian package" in text("#sbom")
    assert "libpython3.11" in text("#materials")
    assert "libcustomcopy.so" in text("#materials")
    assert "The checks found nothing." in text("#findings")


def test_it_can_be_read(seen: Browser) -> None:
    texts = seen.run(TEXTS)
    assert len(texts) > 300
    assert [each for each in texts if each[2] < 4.5] == []
    assert [each for each in texts if each[1] < 14] == []


def test_nothing_is_cut_and_nothing_makes_the_page_wider(seen: Browser) -> None:
    assert seen.run(CUT) == []
    scroll, client = seen.run(WIDTHS)
    assert scroll <= client


def test_it_asks_for_nothing_and_complains_of_nothing(seen: Browser) -> None:
    assert seen.logged() == ([], [])


def test_every_picture_has_a_name_and_a_table(browser: Browser, reported: Reported) -> None:
    _open(browser, reported.file, "light")
    names = browser.run(
        "return Array.from(document.querySelectorAll('svg[role=img]'), (each) => each.firstChild.textContent)"
    )
    assert len(names) > 10
    assert all(names)
    for section in ("timeline", "layers", "changes", "latency", "sbom"):
        assert browser.run("return document.querySelectorAll(`#${arguments[0]} table tbody tr`).length", section) > 0


def test_light_and_dark_are_two(browser: Browser, reported: Reported) -> None:
    colours = """
    const of = (what, name) => getComputedStyle(document.querySelector(what))[name];
    return [of("body", "backgroundColor"), of("section", "backgroundColor"), of("h2", "color"), of("rect.ran", "fill")];
    """
    browser.open(reported.file, scheme="light")
    light = browser.run(colours)
    browser.open(reported.file, scheme="dark")
    assert all(one != other for one, other in zip(light, browser.run(colours), strict=True))


def test_the_list_of_packages_can_be_filtered(browser: Browser, reported: Reported) -> None:
    _open(browser, reported.file, "light")
    shown = "return document.querySelectorAll('#materials tbody tr:not([hidden])').length"
    everything = browser.run(shown)
    browser.driver.find_element("id", "filter").send_keys("libpython Debian")
    assert 0 < browser.run(shown) < 5 < everything
    assert browser.run(TEXT, "#filtered") == f"{browser.run(shown)} of {everything}"


def test_a_build_that_failed_has_a_page(browser: Browser, reported: Reported, tmp_path: Path) -> None:
    file = tmp_path / "failed.html"
    out = reported.project.builder("report", reported.failed.id, "--out", str(file)).ok().stdout
    assert out == f"{file}\n"
    for how in ("light", "dark phone"):
        _open(browser, file, how)
        assert "it does not compile" in browser.run(TEXT, "#error")
        assert HOSTILE in browser.run("return document.querySelector('#error pre').textContent")
        assert "failed" in browser.run(TEXT, "#timeline .row")
        _is_readable(browser)


def test_no_text_is_more_than_text(browser: Browser, tmp_path: Path, reported: Reported) -> None:
    """Whatever a project, a compiler or a server says: it is shown, and it stays in its place."""
    long = "x" * 4000
    entry = reported.entry
    found = load(reported.project.root)
    verification = Verification.of_digest(found, entry.digest)
    assert verification
    [model] = verification.models
    changes = {
        "repository": f"localhost:5000/{HOSTILE}{long}",
        "project": HOSTILE + long,
        "base": HOSTILE + long,
        "versions": {HOSTILE: HOSTILE, long: long},
        "sources": {f"plugin/{HOSTILE}": "1", f"plugin/{long}": "2"},
        "plugins": {HOSTILE: "3"},
        "steps": (
            Step(title=HOSTILE, stage=HOSTILE, began=0, seconds=5),
            Step(title=long, stage=long, began=1, seconds=20, error=HOSTILE),
            Step(title=HOSTILE, stage="cached", began=1, seconds=0, cached=True),
        ),
        "findings": (
            {
                "code": HOSTILE,
                "severity": HOSTILE,
                "what": HOSTILE,
                "place": {"file": HOSTILE},
                "detail": [long, HOSTILE],
            },
            {"code": long, "severity": "error", "what": long, "place": {"file": long}, "remedy": long, "model": long},
            {"severity": "note", "what": "\udc80"},
        ),
    }
    fast = Latency(p50=1, p99=1, histogram=((1.0, 1),))
    told = Told(
        build=entry.model_copy(update=changes),
        before=entry,
        recent=(entry, entry, entry.model_copy(update=changes)),
        verification=verification.model_copy(
            update={
                "models": (
                    model.model_copy(update={"name": HOSTILE + long, "oracle": HOSTILE, "latency_ms": fast}),
                    model,
                ),
                "negative_control": verification.negative_control.model_copy(update={"evidence": HOSTILE + long}),
                "server_log": (HOSTILE, long),
            }
        ),
        sbom={"components": [{"name": HOSTILE, "version": long, "type": HOSTILE}, {"name": long}]},
    )
    file = tmp_path / "hostile.html"
    file.write_text(page(told))
    for how in ("light", "dark phone"):
        _open(browser, file, how)
        assert browser.run("return [window.hacked ?? 0, document.images.length, document.scripts.length]") == [0, 0, 1]
        for where in ("h1", "#timeline", "#changes", "#verification pre", "#sbom", "#findings", "title"):
            assert HOSTILE in browser.run("return document.querySelector(arguments[0]).textContent", where)
        assert browser.run(WIDTHS)[0] <= browser.run(WIDTHS)[1]
        assert browser.logged() == ([], [])


def _is_readable(browser: Browser) -> None:
    texts = browser.run(TEXTS)
    assert [each for each in texts if each[2] < 4.5 or each[1] < 14] == []
    assert browser.run(CUT) == []
    scroll, client = browser.run(WIDTHS)
    assert scroll <= client
    assert browser.logged() == ([], [])


def test_these_questions_would_find_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    """A page with every mistake that the tests above look for."""
    file = tmp_path / "wrong.html"
    file.write_text(
        '<meta http-equiv="Content-Security-Policy" content="script-src \'none\'"><script>1</script>'
        '<meta name="viewport" content="width=device-width"><body style="background: #fff">'
        '<p style="color: #aaa">pale</p><p style="font-size: 9px">small</p>'
        '<h1 style="width: 3em; overflow: hidden; white-space: nowrap">a heading that is cut</h1>'
        '<svg width="99"><text x="90" y="9">beyond</text><text x="0" y="9">one</text><text x="1" y="9">two</text></svg>'
        '<img src="http://elsewhere.example/x.png"><div style="width: 900px">wide</div>'
    )
    browser.open(file, **PHONE)
    texts = {text: (size, contrast) for text, size, contrast in browser.run(TEXTS)}
    assert texts["pale"][1] < 4.5 <= texts["wide"][1]
    assert texts["small"][0] < 14
    assert {"a heading that is cut", "one over two"} <= set(browser.run(CUT))
    assert browser.run(WIDTHS)[0] > PHONE["width"]
    said, asked = browser.logged()
    assert any("Content Security Policy" in each for each in said)
    assert "http://elsewhere.example/x.png" in asked


def test_screenshots_can_be_kept(browser: Browser, reported: Reported, tmp_path: Path) -> None:
    """Where REPORT_SCREENSHOTS names a folder, they stay there to be looked at."""
    kept = Path(os.environ.get("REPORT_SCREENSHOTS", tmp_path))
    for how in ("light", "dark", "phone"):
        _open(browser, reported.file, how)
        picture = kept / f"report-{how}.png"
        browser.screenshot(picture)
        assert picture.read_bytes().startswith(b"\x89PNG")
