"""Makes kserve-VERSION.json out of KServe's Python SDK: the JSON Schema of an InferenceService.

The wheel `kserve` holds classes that were generated from the OpenAPI definitions of KServe's Go types. This reads the
names and types of their fields, without importing them (the wheel needs some 30 others). What is Kubernetes' own is
referred to by the names that the definitions of the package `kubernetes-validate` have.

    pip download --no-deps kserve==0.21.0
    python tests/unit/data/make_kserve_schema.py kserve-0.21.0-py3-none-any.whl tests/unit/data/kserve-0.21.0.json
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

KUBERNETES = "https://kubernetes.io/api/_definitions.json#/$defs/"
ROOT = "V1beta1InferenceService"
PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "object": {},
}
ELSEWHERE = {
    "V1ObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    "V1Time": "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "V1Duration": "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
    "ResourceQuantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "K8sIoApiAppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
}


def models(wheel: zipfile.ZipFile) -> dict[str, tuple[dict[str, str], dict[str, str], set[str]]]:
    """Of each class: the types of its fields, their names in JSON, and which must be there."""
    found = {}
    for path in wheel.namelist():
        if not re.fullmatch(r"kserve/models/v1\w+\.py", path):
            continue
        text = wheel.read(path).decode()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                values = {
                    target.id: ast.literal_eval(each.value)
                    for each in node.body
                    if isinstance(each, ast.Assign)
                    for target in each.targets
                    if isinstance(target, ast.Name) and target.id in ("openapi_types", "attribute_map")
                }
                required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", text))
                found[node.name] = (values["openapi_types"], values["attribute_map"], required)
    return found


def schema(kind: str, known: set[str], wanted: set[str]) -> dict[str, Any]:
    """Of a field of this type; `wanted` gets the classes that it refers to."""
    if kind in PLAIN:
        return PLAIN[kind]
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": schema(inner[1], known, wanted)}
    if inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {"type": "object", "additionalProperties": schema(inner[1], known, wanted)}
    if kind in known:
        wanted.add(kind)
        return {"$ref": f"#/$defs/{kind}"}
    if kind in ELSEWHERE:
        return {"$ref": KUBERNETES + ELSEWHERE[kind]}
    if core := re.fullmatch(r"V1([A-Z]\w+)", kind):
        return {"$ref": f"{KUBERNETES}io.k8s.api.core.v1.{core[1]}"}
    print(f"nothing is known of {kind}: anything is taken", file=sys.stderr)
    return {}


def main(wheel: Path, out: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        known = models(archive)
    wanted, definitions = {ROOT}, {}
    while missing := sorted(wanted - set(definitions)):
        types, names, required = known[missing[0]]
        definitions[missing[0]] = {
            "type": "object",
            "properties": {names[field]: schema(kind, set(known), wanted) for field, kind in sorted(types.items())},
            "required": sorted(names[field] for field in required),
            "additionalProperties": False,
        }
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:kserve",
        "$comment": f"made by {Path(__file__).name} from {wheel.name} (Apache-2.0), "
        f"sha256 {hashlib.sha256(wheel.read_bytes()).hexdigest()}",
        "$ref": f"#/$defs/{ROOT}",
        "$defs": dict(sorted(definitions.items())),
    }
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
