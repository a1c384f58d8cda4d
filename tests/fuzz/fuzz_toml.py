"""Feeds builder.toml to the program for some time: python tests/fuzz/fuzz_toml.py --seconds 600

Ends with 1, and the input in ./crash-*, when anything but a project or its findings comes out, when one takes more than
5 s, or when 512 MiB do not suffice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["builder", "tomllib"]):
    import tomllib

    from builder import project, settings
    from builder.checks.targets import check_targets
    from builder.checks.verification import check_oracles

from builder.errors import BuilderError, CheckFailed

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-toml-"))


def seeds() -> list[bytes]:
    """The shipped file, and whatever the broken projects write."""
    found = [path.read_bytes() for path in [ROOT / "builder.toml", *ROOT.glob("tests/projects/*/builder.toml")]]
    for path in sorted(ROOT.glob("tests/broken/*.toml")):
        case = tomllib.loads(path.read_text())
        texts = [each.get("text", each.get("new", "")) for each in case.get("write", []) + case.get("edit", [])]
        found += [text.encode() for text in texts]
    return found


def read(data: bytes) -> None:
    (FOLDER / settings.FILE_NAME).write_bytes(data)
    try:
        here = project.load(FOLDER, environment={})
    except CheckFailed as failure:
        for finding in failure.findings:
            assert finding.remedy
            assert finding.place.file == settings.FILE_NAME
            assert finding.place.line <= data.count(b"\n") + 1
        return
    except BuilderError:
        return
    list(project.described(settings.read(FOLDER)))
    list(check_targets(here, here.targets))
    list(check_oracles(here, ["mydali"]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for index, data in enumerate(seeds()):
        (corpus / f"seed-{index}").write_bytes(data)
    limits = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=512", "-max_len=8192"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
