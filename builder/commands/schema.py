"""`schema`: what builder.toml may hold, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON Schema of builder.toml, with which editors complete and check it.

    Example, for editors that use taplo (such as VS Code with Even Better TOML): write it to a file, and put
    "#:schema builder.schema.json" at the head of builder.toml:

      python -m builder schema > builder.schema.json
    """
    from builder.project import ProjectFile

    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ProjectFile.model_json_schema()}
    print(json.dumps({**document, "title": "builder.toml"}, indent=2))
