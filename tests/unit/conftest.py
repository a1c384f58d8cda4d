from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from builder.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    targets = {"embedded": {}, "ngc": {"triton_image": "nvcr.io/nvidia/tritonserver:26.06-py3"}}
    return Project.model_validate({"root": tmp_path, "repository": "localhost:5000/mydali", "targets": targets})


@pytest.fixture
def console() -> Console:
    """No terminal; what was printed is in `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=200)
