"""The command's answers that need no registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Run, document

NOWHERE = "localhost:1/team/mydali:1.0"


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (["Not/A/Reference"], "reference-invalid", 2),
        ([], "usage", 2),
        ([NOWHERE, "--key", "none.pub"], "signing-key-invalid", 2),
        ([NOWHERE], "no-registry", 3),
    ],
)
def test_what_cannot_be_verified_is_told(run: Run, arguments: list[str], code: str, status: int) -> None:
    exit_status, out, _ = run("verify", *arguments, "--json")
    assert (document(out)["error"]["code"], exit_status) == (code, status)


def test_the_key_is_looked_at_before_the_registry_is_asked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cosign.pub").write_text("-----BEGIN PUBLIC KEY-----\nnone\n-----END PUBLIC KEY-----\n")
    status, _, err = run("verify", NOWHERE, "--key", str(tmp_path / "cosign.pub"))
    assert status == 2
    assert "this is no public key" in err
    assert "no registry" not in err
