#!/usr/bin/env python3
"""values.schema.json refuses what it doesn't know, on every level: each object is closed, but for those whose keys are
Kubernetes' or a person's own. And every key of the programs' configuration that it takes is tried in values/everything.yaml."""
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Labels, annotations and other maps of names; objects of Kubernetes' or the HealthPolicy's, which the API server or the agent judges.
OPEN = re.compile(r"[lL]abels$|[aA]nnotations$|nodeSelector$|resources$|affinity$|tolerations\[\]$|metricsFrom\[\]$|egress\[\]$"
                  r"|^agent\.policy\[\]$|^global$")


def objects(schema, path=""):
    """(path, schema) of each object."""
    if "properties" in schema or schema.get("type") == "object":
        yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from objects(below, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from objects(schema["items"], path + "[]")


def main():
    schema = json.loads((ROOT / "charts/pitcrew/values.schema.json").read_text())
    found = dict(objects(schema))
    wrong = [f"{path}: takes any key" for path, one in found.items() if one.get("additionalProperties") is not False and not OPEN.search(path)]
    tried = (ROOT / "tests/chart/values/everything.yaml").read_text()
    for path in ("operator.config", "agent.config"):
        wrong += [f"{path}.{key}: not in values/everything.yaml" for key in found[path]["properties"] if not re.search(rf"\b{key}: ", tried)]
    print("\n".join(wrong) or f"{len(found)} objects, each refuses unknown keys or is somebody else's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
