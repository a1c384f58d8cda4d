from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from builder.project import Project, Target


@pytest.fixture
def project(tmp_path: Path) -> Project:
    ngc = Target(triton_image="nvcr.io/nvidia/tritonserver:26.06-py3")
    return Project(root=tmp_path, repository="localhost:5000/mydali", targets={"embedded": Target(), "ngc": ngc})


@pytest.fixture
def console() -> Console:
    """No terminal; what was printed is in `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=200)
