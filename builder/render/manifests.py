"""Objects as YAML, for people to read and `kubectl apply` to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml


class _Plain(yaml.SafeDumper):
    """Objects that occur twice are written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def text(documents: Sequence[Mapping[str, Any]], comments: Sequence[str]) -> str:
    """The documents, keys in their order, below the comments: the same bytes for the same objects."""
    head = "".join(f"# {line}\n" for line in comments)
    body = yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, explicit_start=True, width=120, allow_unicode=True)
    return head + body
