#!/usr/bin/env python3
"""Writes JSON schemas for kubeconform: of a Kubernetes version's own OpenAPI and the Prometheus operator's, or of our definitions.

    schemas.py VERSION FOLDER     VERSION like v1.36.3; FOLDER gets <kind>-<group>-<version>.json for every kind
    schemas.py ours FOLDER

What a schema names is closed: an unknown field is refused. The sources are Go modules (k8s.io/kubernetes holds the API
server's swagger.json), fetched by Go; exit code 77, with the reason, where they can't be had.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))
sys.dont_write_bytecode = True
from harness import config, gobuild  # noqa: E402

DEFINITIONS = "#/definitions/"
# What the API server reads in more than one form, where its OpenAPI names one.
FORMS = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}


def module(path, version):
    """The folder of a Go module."""
    done = subprocess.run(["go", "mod", "download", "-json", f"{path}@{version}"], cwd="/", env=gobuild.go_environment(),
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise config.NotRun(f"{path} can't be fetched: {done.stderr.strip() or done.stdout.strip()}")
    return Path(json.loads(done.stdout)["Dir"])


def closed(schema):
    """The schema with every object that has named fields closed, and Kubernetes' extensions said in JSON schema."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    fixed = {key: closed(value) if key != "default" else value for key, value in schema.items() if not key.startswith("x-")}
    if schema.get("x-kubernetes-embedded-resource"):
        return {"type": "object"}
    if isinstance(fixed.get("properties"), dict):
        fixed["properties"] = {name: closed(value) for name, value in schema["properties"].items()}
        if "additionalProperties" not in fixed and not schema.get("x-kubernetes-preserve-unknown-fields"):
            fixed["additionalProperties"] = False
    if fixed.pop("nullable", False) and isinstance(fixed.get("type"), str):
        fixed["type"] = [fixed["type"], "null"]
    return fixed


def needed(definitions, schema, found):
    for name in {part[len(DEFINITIONS):] for part in references(schema)}:
        if name not in found:
            found[name] = FORMS.get(name) or definitions[name]
            needed(definitions, found[name], found)
    return found


def references(schema):
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for part in schema.values():
            yield from references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from references(part)


def file_name(group, version, kind):
    """As kubeconform asks for it: a group is known by its first word."""
    return "-".join(part for part in (kind.lower(), group.split(".")[0], version.lower()) if part) + ".json"


def of_kubernetes(version):
    swagger = json.loads((module("k8s.io/kubernetes", version) / "api/openapi-spec/swagger.json").read_text())
    definitions = {name: closed(schema) for name, schema in swagger["definitions"].items()}
    for name, schema in swagger["definitions"].items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            if "spec" in schema.get("properties", {}) or "metadata" in schema.get("properties", {}):
                body = dict(definitions[name], definitions=needed(definitions, definitions[name], {}))
                yield file_name(kind["group"], kind["version"], kind["kind"]), body


def read_yaml(files):
    """By Helm, which is here already: Python has no YAML of its own."""
    with tempfile.TemporaryDirectory(prefix="pitcrew-yaml-") as folder:
        chart = Path(folder)
        (chart / "templates").mkdir()
        (chart / "Chart.yaml").write_text("{apiVersion: v2, name: read, version: 1.0.0}")
        (chart / "templates/all.yaml").write_text(
            '{{- range $path, $_ := .Files.Glob "file-*" }}\n---\n{{ $.Files.Get $path | fromYaml | toJson }}\n{{- end }}\n')
        for number, file in enumerate(files):
            shutil.copy(file, chart / f"file-{number}")
        text = subprocess.run([gobuild.program("helm"), "template", "read", folder], capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def of_definitions(files):
    for crd in read_yaml(files):
        for version in crd["spec"]["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
            yield file_name(crd["spec"]["group"], version["name"], crd["spec"]["names"]["kind"]), closed(schema)


def main():
    version, folder = sys.argv[1], Path(sys.argv[2])
    if version == "ours":
        schemas = of_definitions(sorted((ROOT / "crds").glob("*.yaml")))
    else:
        prometheus = module("github.com/prometheus-operator/prometheus-operator", config.PINS["PROMETHEUSOPERATOR"])
        crds = sorted((prometheus / "example/prometheus-operator-crd").glob("*_p*.yaml"))
        schemas = (*of_kubernetes(version), *of_definitions(crds))
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, schema in schemas:
        (folder / name).write_text(json.dumps(schema))
        count += 1
    print(f"{count} schemas ({version})", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except config.NotRun as reason:
        print(f"not run: {reason}", file=sys.stderr)
        sys.exit(77)
