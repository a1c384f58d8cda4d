"""Feeds configurations and pipelines to the checks for some time: python tests/fuzz/fuzz_pbtxt.py --seconds 600

Ends with 1, and the input in ./crash-*, when anything but a finding comes out, when one takes more than 5 s, or when
512 MiB do not suffice.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["builder", "google.protobuf.text_format"]):
    import google.protobuf.text_format  # noqa: F401  imported late by builder.pbtxt, and to be instrumented
    from tritonclient.grpc import model_config_pb2  # noqa: F401  likewise

    from builder import configure, pbtxt
    from builder.checks.context import Context
    from builder.checks.models import check_models
    from builder.checks.repository import models

from builder.errors import CheckFailed, ProjectError

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ROOT / "tests" / "unit" / "data" / "pipelines"
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-pbtxt-"))
VERSION = FOLDER / "repository" / "m" / "1"
FILES = {0: VERSION.parent / "config.pbtxt", 1: VERSION / "dali.py", 2: VERSION / "model.dali"}
CONTEXTS = (Context("ngc", ("/models/liba.so",)), Context("embedded", (), completes=False, has_gpu=False))


def seeds() -> list[bytes]:
    """The first byte says which file the rest is."""
    examples = [b"\0" + path.read_bytes() for path in ROOT.glob("**/config.pbtxt") if ".builder" not in path.parts]
    examples += [b"\1" + path.read_bytes() for path in PIPELINES.glob("*/dali.py")]
    return examples + [b"\2" + path.read_bytes() for path in PIPELINES.glob("*/model.dali")]


def read(data: bytes) -> None:
    if not data:
        return
    target = FILES[data[0] % 3]
    # The other files are those of an example, so that there is something to compare with.
    shutil.copy(PIPELINES / "declared" / "dali.py", FILES[1])
    FILES[2].unlink(missing_ok=True)
    if target != FILES[0]:
        FILES[0].write_text('backend: "dali"\ninput { name: "A" data_type: TYPE_UINT8 dims: 1 }\n')
    target.write_bytes(data[1:])
    for context in CONTEXTS:
        for finding in check_models(FOLDER, VERSION.parents[1], context):
            assert finding.remedy
            assert finding.place.file
    [model] = models(FOLDER, VERSION.parents[1])[0]
    signature = model.pipeline(VERSION, None).signature
    if signature is None or model.unreadable:
        return
    try:
        text = configure.complete(signature, model.config, "m")
    except ProjectError:
        return
    FILES[0].write_text(text)
    try:
        pbtxt.read(FILES[0])
    except CheckFailed as failure:
        raise AssertionError(f"what was completed cannot be read: {failure}") from failure


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    VERSION.mkdir(parents=True)
    FILES[0].write_text('backend: "dali"\n')
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for index, data in enumerate(seeds()):
        (corpus / f"seed-{index}").write_bytes(data)
    limits = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=512", "-max_len=4096"]
    atheris.Setup([sys.argv[0], str(corpus), *limits], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
