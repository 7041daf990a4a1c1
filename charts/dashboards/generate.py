#!/usr/bin/env python3
"""Makes charts/pitcrew/dashboards/*.json of description.py. With --check: says which are stale, and writes nothing."""
import json
import pathlib
import sys

from description import ANNOTATION, DASHBOARDS, VARIABLES

OUT = pathlib.Path(__file__).resolve().parent.parent / "pitcrew" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
TYPES = {"timeseries": "timeseries", "stat": "stat", "table": "table", "bars": "bargauge"}


def thresholds(panel):
    return {"mode": "absolute", "steps": [{"value": at, "color": colour} for at, colour in panel["thresholds"]]}


def defaults(panel):
    one = {"unit": panel["unit"], "thresholds": thresholds(panel), "mappings": []}
    if panel["minimum"] is not None and panel["kind"] in ("timeseries", "bars"):
        one["min"] = panel["minimum"]
    if panel["maximum"] is not None:
        one["max"] = panel["maximum"]
    if panel["decimals"] is not None:
        one["decimals"] = panel["decimals"]
    if isinstance(panel["text"], dict):
        one["mappings"] = [{"type": "value", "options": {value: {"text": text} for value, text in panel["text"].items()}}]
    if panel["kind"] == "timeseries":
        one["color"] = {"mode": "palette-classic"}
        one["custom"] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 25 if panel["stack"] else 5, "showPoints": "never",
                         "stacking": {"mode": "normal" if panel["stack"] else "none", "group": "A"}}
    return one


def options(panel):
    if panel["kind"] == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"}}
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel["kind"] == "stat":
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "justifyMode": "center",
                "textMode": "name" if panel["text"] == "legend" else "value"}
    if panel["kind"] == "bars":
        return {"reduceOptions": reduce, "orientation": "horizontal", "displayMode": "basic"}
    return {"showHeader": True}


def target(panel, index, query, legend):
    instant = panel["kind"] != "timeseries"
    return {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend or "__auto", "datasource": SOURCE,
            "instant": instant, "range": not instant, "format": "table" if panel["kind"] == "table" else "time_series"}


def grafana_panel(panel, number, x, y):
    made = {"id": number, "type": TYPES[panel["kind"]], "title": panel["title"], "description": panel["help"],
            "datasource": SOURCE, "gridPos": {"x": x, "y": y, "w": panel["width"], "h": panel["height"]},
            "fieldConfig": {"defaults": defaults(panel), "overrides": []}, "options": options(panel),
            "targets": [target(panel, i, query, legend) for i, (query, legend) in enumerate(panel["queries"])]}
    if panel["columns"]:
        made["transformations"] = [{"id": "filterFieldsByName", "options": {"include": {"names": panel["columns"] + ["Value"]}}}]
        made["fieldConfig"]["overrides"] = [{"matcher": {"id": "byName", "options": "Value"},
                                             "properties": [{"id": "displayName", "value": panel["value"]}]}]
    return made


def variable(name):
    return {"name": name, "type": "query", "label": name, "datasource": SOURCE, "definition": VARIABLES[name],
            "query": {"query": VARIABLES[name], "refId": name}, "refresh": 2, "sort": 1, "includeAll": False, "multi": False}


def dashboard(description):
    panels, number, y = [], 1, 0
    for title, row in description["rows"]:
        panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        number, y, x, tallest = number + 1, y + 1, 0, 0
        for panel in row:
            if x + panel["width"] > 24:
                x, y, tallest = 0, y + tallest, 0
            panels.append(grafana_panel(panel, number, x, y))
            number, x, tallest = number + 1, x + panel["width"], max(tallest, panel["height"])
        y += tallest
    annotations = []
    if description.get("annotations"):
        annotations.append({"name": "Recoveries", "enable": True, "iconColor": "red", "datasource": SOURCE, "expr": ANNOTATION,
                            "useValueForTime": True, "step": "15s", "titleFormat": "{{cause}} → {{rung}}",
                            "textFormat": "node {{node}}, epoch {{epoch}}"})
    source = {"name": "datasource", "type": "datasource", "label": "data source", "query": "prometheus", "refresh": 1}
    return {"uid": description["uid"], "title": description["title"], "description": description["about"], "tags": ["pitcrew"],
            "timezone": "utc", "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"}, "annotations": {"list": annotations},
            "links": [{"type": "dashboards", "tags": ["pitcrew"], "title": "Pitcrew", "asDropdown": True, "includeVars": True,
                       "keepTime": True}],
            "templating": {"list": [source] + [variable(name) for name in description["variables"]]}, "panels": panels}


def main():
    stale = []
    for name, description in DASHBOARDS.items():
        file = OUT / f"{name}.json"
        text = json.dumps(dashboard(description), indent=1, ensure_ascii=False) + "\n"
        if sys.argv[1:] == ["--check"]:
            if not file.exists() or file.read_text() != text:
                stale.append(str(file))
        else:
            OUT.mkdir(exist_ok=True)
            file.write_text(text)
    if stale:
        sys.exit("stale: " + ", ".join(stale) + "; run scripts/dashboards generate")


main()
