#!/usr/bin/env python3
"""What the pages name exists: headings that links lead to, commands and their flags, values of the chart, fields of a TrainingJob,
metrics, scripts and their parts, files of the repository. Prints each that doesn't; exit status 1 where there is one.

    tests/house/docs.py [--manifests FOLDER]     writes the TrainingJobs that pages show into the folder, and checks nothing
"""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
os.chdir(ROOT)
GENERATED = ("docs/reference/", "docs/health-xids.md")
PROGRAMS = ("pitcrew", "pitcrew-operator", "pitcrew-agent", "pitcrew-launcher", "pitcrew-train", "pitcrew-check")
# For shells and for kubelets, not for people: not in --help.
HIDDEN = {"pitcrew complete", "pitcrew-launcher copy"}
TRAINERS = ("docs/trainer.md", "docs/trainer-gpu.md")  # pitcrew-train has a --set of its own
complaints = []


def tracked(*patterns):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if Path(name).exists()]


def complain(page, what):
    complaints.append(f"{page}: {what}")


def without_blocks(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def slug(heading):
    """A heading's anchor, as GitHub makes it."""
    heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


def code_of(text):
    """Each command line: lines of blocks, indented lines, and words in backquotes."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.S | re.M):
        yield from block.replace("\\\n", " ").splitlines()
    plain = without_blocks(text)
    yield from re.findall(r"^    +(.*)$", plain.replace("\\\n", " "), re.M)
    yield from (" ".join(words.split()) for words in re.findall(r"`([^`]+)`", plain))


def check_anchors(pages):
    anchors = {page: {slug(heading) for heading in re.findall(r"^#+ (.*)$", without_blocks(text), re.M)} for page, text in pages.items()}
    for page, text in pages.items():
        for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]*#[^)\s]+)\)", text):
            file, _, anchor = link.partition("#")
            target = os.path.normpath(os.path.join(os.path.dirname(page), file)) if file else page
            if target in anchors and anchor not in anchors[target]:
                complain(page, f"{link}: there is no such heading")


def commands():
    """Command → its flags, of the generated page."""
    found, name = {}, None
    for line in Path("docs/reference/commands.md").read_text().splitlines():
        heading = re.match(r"#{2,4} (pitcrew[\w-]*(?: [\w-]+)*)$", line)
        if heading:
            name = heading[1]
            found[name] = set()
        elif name:
            found[name].update(re.findall(r"(?<![\w-])(--?[a-zA-Z][\w-]*)", line))
    return found


def check_commands(pages):
    known = commands()
    for page, text in pages.items():
        for line in code_of(text):
            match = re.match(r"(?:\$ )?(?:build/release/bin/)?(?:kubectl )?(pitcrew(?:-[a-z]+)?)( .*)?$", line)
            if not match or match[1] not in PROGRAMS:
                continue
            words = re.split(r" #|[|;>&]", match[2] or "")[0].split()
            name, rest = match[1], list(words)
            while rest and f"{name} {rest[0]}" in known:
                name += f" {rest.pop(0)}"
            if name == "pitcrew" and rest and re.match(r"[a-z]+$", rest[0]) and f"pitcrew {rest[0]}" not in HIDDEN:
                complain(page, f"there is no command 'pitcrew {rest[0]}' ({line})")
            for word in rest:
                flag = re.match(r"(--?[a-zA-Z][\w-]*)(=|$)", word)
                if flag and flag[1] not in known[name] and flag[1] not in known[match[1]]:
                    complain(page, f"{name} has no flag {flag[1]} ({line})")


def is_value(schema, path):
    """Whether the chart's schema has a place for it; below labels and the like a person names them."""
    if not path or (schema.get("type") == "object" and "properties" not in schema):
        return True
    return path[0] in schema.get("properties", {}) and is_value(schema["properties"][path[0]], path[1:])


def check_values(pages):
    """What is given to Helm, or has a value's first word and a point in it."""
    schema = json.loads(Path("charts/pitcrew/values.schema.json").read_text())
    tops = "|".join(sorted(name for name, below in schema["properties"].items() if "properties" in below))
    for page, text in pages.items():
        named = [] if page in TRAINERS else re.findall(r"--set(?:-json|-string|-file)? '?([\w.]+)", text)
        if page.startswith("docs/"):
            named += re.findall(rf"`((?:{tops})\.[A-Za-z.]+)(?:=[^`]*|: [^`]*)?`", text)
        for value in named:
            if not is_value(schema, value.split(".")) and value not in FIELDS and not os.path.exists(value):
                complain(page, f"the chart has no value {value}")


FIELDS = {re.sub(r"^(spec|status)\.", "", path).replace("[]", "")
          for page in Path("docs/reference").glob("*.md") for path in re.findall(r"^\| `([\w.\[\]*]+)` \|", page.read_text(), re.M)}
FIELDS |= {".".join(path.split(".")[:n]) for path in FIELDS for n in range(1, 9)}


def check_fields(pages):
    """What begins with one of a job's groups of fields."""
    groups = "lifecycle|recovery|placement|monitoring"
    for page, text in pages.items():
        for path in re.findall(rf"`((?:spec\.)?(?:{groups})\.[a-zA-Z.]+)(?:: [^`]*)?`", text):
            if path.removeprefix("spec.") not in FIELDS:
                complain(page, f"a TrainingJob has no field {path}")


def check_metrics(pages):
    tables = "".join(Path(page).read_text() for page in ("docs/metrics.md", "docs/agent-metrics.md"))
    known = set(re.findall(r"^\| `(\w+)`", tables, re.M)) | {"DCGM_FI_DRIVER_VERSION"}  # a label
    for page, text in pages.items():
        if not page.startswith("docs/"):
            continue  # targets of the build have such names too
        for name in re.findall(r"`((?:pitcrew|DCGM_FI)_[A-Za-z0-9_]+)(?:\{[^`]*\})?`", text):
            if name not in known and re.sub(r"_(bucket|sum|count)$", "", name) not in known and not name.endswith("_"):
                complain(page, f"there is no metric {name}")


def rights_of(component, file):
    """{(API group, resource, verb)} of the roles that the chart gives a program."""
    found = set()
    for one in yaml.safe_load_all(Path(file).read_text()):
        if one and one["kind"] in ("ClusterRole", "Role") and one["metadata"]["name"].startswith(f"pitcrew-{component}"):
            found |= {(group, resource, verb) for rule in one["rules"] for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}
    return found


def check_rights(pages):
    """Each right of the operator stands in its page, and none that it doesn't have."""
    told = set()
    tables = pages["docs/operator.md"].partition("## What the operator does to the cluster")[2].partition("\n## ")[0]
    for cells in re.findall(r"^\| ((?:`[\w./]+` ?)+)\| ([a-z, ]+) \|", tables, re.M):
        *group, resource = re.findall(r"`([^`]+)`", cells[0])
        told |= {(group[0] if group else "", resource, verb) for verb in cells[1].split(", ")}
    held = rights_of("operator", "tests/chart/golden/default.yaml")
    known = {("karpenter.sh", "nodeclaims", "list"), ("karpenter.sh", "nodeclaims", "delete"), ("", "services", "create")}  # with a mode, or without the chart
    for what, ones in (("isn't said to be the operator's", held - told), ("isn't the operator's by the chart", told - held - known)):
        for group, resource, verb in sorted(ones):
            complain("docs/operator.md", f"{verb} {resource} ({group or 'core'}) {what}")


def check_scripts(pages):
    parts = set(re.findall(r"^  ([a-z]+)  ", subprocess.run(["sed", "-n", "/^usage: scripts.test/,/^USAGE/p", "scripts/test"], capture_output=True, text=True).stdout, re.M))
    for page, text in pages.items():
        for script in re.findall(r"(?<![\w/.-])((?:\./)?(?:scripts|tests)/[\w./-]+)", text):
            script = script.rstrip(".").rstrip("/")
            if not os.path.exists(script) and not os.path.exists(os.path.join(os.path.dirname(page), script)):
                complain(page, f"there is no {script}")
        for part in re.findall(r"`?scripts/test ([a-z]+)(?:=|\b)", text):
            if part not in parts and part not in ("all", "and", "is", "needs"):
                complain(page, f"scripts/test has no part {part}")


def write_manifests(pages, folder):
    """Each whole TrainingJob that a page shows, as a file: `pitcrew validate` and API servers judge them."""
    for page, text in pages.items():
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M)):
            if re.search(r"^kind: TrainingJob$", block, re.M):
                (Path(folder) / f"{page.replace('/', '-').removesuffix('.md')}-{number}.yaml").write_text(block)


def main():
    pages = {page: Path(page).read_text() for page in tracked("*.md")}
    if sys.argv[1:2] == ["--manifests"]:
        return write_manifests(pages, sys.argv[2])
    written = {page: text for page, text in pages.items() if not page.startswith(GENERATED)}
    check_anchors(pages)
    for check in (check_commands, check_values, check_fields, check_metrics, check_rights, check_scripts):
        check(written)
    print("\n".join(complaints) or f"{len(pages)} pages name nothing that isn't there")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
