#!/usr/bin/env python3
"""Draws dashboards from their own JSON and a Prometheus's answers (tests/dashboards/live.py --keep), as SVG in a page that
headless Chromium takes a picture of: where there is no Grafana, this is how dashboards are looked at.

    render.py ANSWERS.json OUTPUT_FOLDER
"""
import html
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

DASHBOARDS = pathlib.Path(__file__).resolve().parent.parent / "pitcrew" / "dashboards"
COLUMN, ROW_HEIGHT, GAP = 64, 34, 6  # Grafana's grid: 24 columns
PALETTE = ["#7EB26D", "#EAB839", "#6ED0E0", "#EF843C", "#E24D42", "#1F78C1", "#BA43A9", "#705DA0", "#508642", "#CCA300", "#447EBC",
           "#C15C17"]
COLOURS = {"green": "#73BF69", "yellow": "#FADE2A", "orange": "#FF9830", "red": "#F2495C", "blue": "#5794F2", "text": "#D8D9DA"}


def scaled(value, steps, base=1000.0):
    for unit in steps:
        if abs(value) < base:
            return value, unit
        value /= base
    return value * base, steps[-1]


def plain(value):
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def shown(value, unit, decimals=None):
    """A number as Grafana shows it in this unit."""
    def digits(number, otherwise=3):
        return f"{number:.{decimals}f}" if decimals is not None else f"{number:.{otherwise}g}"
    if value is None or value != value:
        return "no data"
    if unit == "percentunit":
        return digits(value * 100) + " %"
    if unit == "percent":
        return digits(value) + " %"
    if unit == "s":
        if abs(value) < 1 and value != 0:
            return digits(value * 1000) + " ms"
        for limit, divisor, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "hours")):
            if abs(value) < limit:
                return (digits(value / divisor) if divisor > 1 or decimals is not None else plain(round(value, 2))) + " " + name
        return digits(value / 86400) + " days"
    if unit == "h":
        return digits(value) + " h"
    if unit == "dateTimeAsIso":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(value))
    if unit in ("bytes", "Bps"):
        number, prefix = scaled(value, ["B", "kB", "MB", "GB", "TB"])
        return digits(number) + " " + prefix + ("/s" if unit == "Bps" else "")
    suffix = {"watt": "W", "celsius": "°C", "ops": "ops/s", "reqps": "req/s", "pps": "p/s"}.get(unit)
    if suffix:
        number, prefix = scaled(value, ["", "k", "M"])
        return digits(number) + " " + prefix + suffix
    number, prefix = scaled(value, ["", " K", " Mil", " Bil"])
    return (plain(round(number, decimals if decimals is not None else 3)) if prefix == "" else digits(number)) + prefix


def legend(target, metric):
    if target["legendFormat"] == "__auto":
        rest = {k: v for k, v in metric.items() if k != "__name__"}
        return ", ".join(f"{k}={v}" for k, v in sorted(rest.items())) or metric.get("__name__", "value")
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: metric.get(found[1], ""), target["legendFormat"])


def series_of(panel, answers):
    """(legend, [(time, value)]) of a panel, in the order of its targets."""
    found = []
    for target in panel["targets"]:
        for one in answers.get(f"{panel['id']}/{target['refId']}", []):
            points = [one["value"]] if "value" in one else one["values"]
            found.append((legend(target, one["metric"]), [(float(t), float(v)) for t, v in points], one["metric"]))
    return found


def colour_of(value, panel):
    colour = "text"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or (value is not None and value >= step["value"]):
            colour = step["color"]
    return COLOURS.get(colour, colour)


def text(x, y, content, size=11, fill="#9FA7B3", anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{html.escape(content)}</text>")


def nothing(width, height):
    return text(width / 2, height / 2 + 8, "No data", 16, "#6C7280", "middle")


def draw_stat(panel, answers, width, height):
    series = [one for one in series_of(panel, answers) if one[1]]
    if not series:
        return nothing(width, height)
    name, points, _ = series[0]
    value = points[-1][1]
    defaults = panel["fieldConfig"]["defaults"]
    content = shown(value, defaults["unit"], defaults.get("decimals"))
    if panel["options"]["textMode"] == "name":
        content = name
    for mapping in defaults["mappings"]:
        if plain(value) in mapping["options"]:
            content = mapping["options"][plain(value)]["text"]
    size = min(34, int((width - 16) / max(4, len(content)) * 1.75))
    return text(width / 2, height / 2 + 22, content, size, colour_of(value, panel), "middle", "500")


def ticks(low, high, count):
    span = (high - low) / count
    magnitude = 10 ** len(str(int(1 / span))) if span < 1 else 1
    step = max(span, 1e-12)
    exponent = 10 ** int(f"{step:e}".split("e")[1])
    for factor in (1, 2, 5, 10):
        if factor * exponent >= step:
            step = factor * exponent
            break
    first = int(low / step) * step
    found, at = [], first
    while at <= high + step * 1e-6 and len(found) < 12:
        if at >= low - step * 1e-6:
            found.append(round(at, 12))
        at += step
    return found or [low, low + magnitude]


def runs_of(points, gap):
    """Lines are broken where nothing was scraped."""
    run = []
    for point in points:
        if point[1] != point[1] or (run and point[0] - run[-1][0] > gap):
            if run:
                yield run
            run = []
        if point[1] == point[1]:
            run.append(point)
    if run:
        yield run


def draw_timeseries(panel, answers, width, height, began, now, marks):
    series = [one for one in series_of(panel, answers) if any(v == v for _, v in one[1])]
    if not series:
        return nothing(width, height)
    defaults = panel["fieldConfig"]["defaults"]
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    if stacked:
        total, piled = {}, []
        for name, points, metric in series:
            lifted = []
            for t, v in points:
                total[t] = total.get(t, 0.0) + (v if v == v else 0.0)
                lifted.append((t, total[t]))
            piled.append((name, lifted, metric, points))
    else:
        piled = [(name, points, metric, points) for name, points, metric in series]
    values = [v for _, points, _, _ in piled for _, v in points if v == v and abs(v) != float("inf")]
    low, high = min(values), max(values)
    if "min" in defaults:
        low = min(low, defaults["min"])
    if "max" in defaults:
        high = max(high, defaults["max"])
    if high - low < 1e-12:
        low, high = (0 if low >= 0 else low - 1), high + (high * 0.2 or 1)
    rows = min(len(piled), 9)
    columns = 3 if width > 480 else 2
    bottom = height - 22 - 15 * ((rows + columns - 1) // columns)
    left, top, right = 62, 34, width - 12

    def x(t):
        return left + (t - began) / (now - began) * (right - left)

    def y(v):
        return bottom - (v - low) / (high - low) * (bottom - top)

    out = []
    for at in ticks(low, high, 4):
        out.append(f'<line x1="{left}" x2="{right}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="#2C3235"/>')
        out.append(text(left - 6, y(at) + 4, shown(at, defaults["unit"]), 10, anchor="end"))
    for i in range(4):
        t = began + (now - began) * (i + 0.5) / 4
        out.append(text(x(t), bottom + 14, time.strftime("%H:%M:%S", time.gmtime(t)), 10, anchor="middle"))
    for t, what in marks:
        if began <= t <= now:
            out.append(f'<line x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top}" y2="{bottom}" stroke="#F2495C" stroke-dasharray="3,3"><title>'
                       f"{html.escape(what)}</title></line>")
            out.append(f'<path d="M{x(t) - 4:.1f} {bottom + 4} l4 -5 l4 5 z" fill="#F2495C"/>')
    for index, (name, points, _, _) in reversed(list(enumerate(piled))):
        colour = PALETTE[index % len(PALETTE)]
        for run in runs_of(points, 12):
            path = " ".join(f"{'M' if i == 0 else 'L'}{x(t):.1f} {y(v):.1f}" for i, (t, v) in enumerate(run))
            if defaults["custom"]["fillOpacity"]:
                out.append(f'<path d="{path} L{x(run[-1][0]):.1f} {bottom} L{x(run[0][0]):.1f} {bottom} Z" fill="{colour}" '
                           f'fill-opacity="{defaults["custom"]["fillOpacity"] / 100}"/>')
            out.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
    for index, (name, _, _, points) in enumerate(piled[:9]):
        at_x, at_y = left - 50 + (index % columns) * (width - 20) / columns, bottom + 30 + 15 * (index // columns)
        label = name if index < 8 or len(piled) == 9 else f"… {len(piled) - 8} more"
        out.append(f'<rect x="{at_x:.1f}" y="{at_y - 8}" width="12" height="4" fill="{PALETTE[index % len(PALETTE)]}"/>')
        out.append(text(at_x + 17, at_y, label[:int((width - 40) / columns / 6.2)], 10.5, "#C7D0D9"))
    return "".join(out)


def draw_bars(panel, answers, width, height):
    series = [one for one in series_of(panel, answers) if one[1] and one[1][-1][1] == one[1][-1][1]]
    if not series:
        return nothing(width, height)
    series.sort(key=lambda one: -one[1][-1][1])
    defaults, most = panel["fieldConfig"]["defaults"], max(max(one[1][-1][1] for one in series), 1e-9)
    step = min(30, (height - 44) / len(series))
    label = min(200, 14 + 7 * max(len(one[0]) for one in series))
    out = []
    for index, (name, points, _) in enumerate(series):
        value, at = points[-1][1], 40 + index * step
        length = max(2, (width - label - 100) * max(value, 0) / most)
        out.append(text(label, at + step / 2 + 2, name, 11, "#C7D0D9", "end"))
        out.append(f'<rect x="{label + 8}" y="{at}" width="{length:.1f}" height="{step - 8:.1f}" fill="{colour_of(value, panel)}" '
                   'fill-opacity="0.85"/>')
        out.append(text(label + 14 + length, at + step / 2 + 2, shown(value, defaults["unit"], defaults.get("decimals")), 11, "#D8D9DA"))
    return "".join(out)


def draw_table(panel, answers, width, height):
    series = series_of(panel, answers)
    if not series:
        return nothing(width, height)
    names = panel["transformations"][0]["options"]["include"]["names"] if panel.get("transformations") else ["Value"]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    longest = [max(len(name), *(len(one[2].get(name, "")) for one in series)) for name in names[:-1]]
    places, out = [14.0], []
    for length in longest:
        places.append(places[-1] + (width - 190) * length / sum(longest))
    called = {one["matcher"]["options"]: one["properties"][0]["value"] for one in panel["fieldConfig"]["overrides"]}
    for place, name in zip(places, names):
        out.append(text(place, 48, called.get(name, name), 11, "#6E9FFF", weight="500"))
    series.sort(key=lambda one: -one[1][-1][1])
    for index, (_, points, metric) in enumerate(series[:int((height - 60) / 19)]):
        at = 70 + index * 19
        out.append(f'<line x1="10" x2="{width - 10}" y1="{at - 14}" y2="{at - 14}" stroke="#2C3235"/>')
        for place, name in zip(places, names):
            out.append(text(place, at, shown(points[-1][1], unit) if name == "Value" else metric.get(name, ""), 11, "#C7D0D9"))
    return "".join(out)


def draw_panel(panel, answers, began, now, marks):
    place = panel["gridPos"]
    x, y = place["x"] * COLUMN + GAP, place["y"] * ROW_HEIGHT
    width, height = place["w"] * COLUMN - GAP, place["h"] * ROW_HEIGHT - GAP
    if panel["type"] == "row":
        return f'<g transform="translate({x},{y})">' + text(4, 21, "▾ " + panel["title"], 15, "#D8D9DA", weight="500") + "</g>"
    draw = {"stat": draw_stat, "bargauge": draw_bars, "table": draw_table}.get(panel["type"])
    inner = draw(panel, answers, width, height) if draw else draw_timeseries(panel, answers, width, height, began, now, marks)
    return (f'<g transform="translate({x},{y})"><rect width="{width}" height="{height}" rx="2" fill="#181B1F" stroke="#24272C"/>'
            + text(10, 21, panel["title"], 13, "#D8D9DA", weight="500") + inner + "</g>")


def page(dashboard, kept):
    answers, began, now = kept["answers"][kept["name"]], kept["began"], kept["now"]
    marks = [(float(one["value"][1]) / 1000, one["metric"].get("cause", "")) for one in answers.get("annotations", [])]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in dashboard["panels"]) * ROW_HEIGHT + 62
    width = 24 * COLUMN + 2 * GAP
    names = [one["name"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    chosen = "   ".join(f"{name}: {kept['variables'].get(name, '')}" for name in names)
    span = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(began)) + " to " + time.strftime("%H:%M:%S UTC", time.gmtime(now))
    body = "".join(draw_panel(panel, answers, began, now, marks) for panel in dashboard["panels"])
    return width, height, (
        '<!doctype html><meta charset="utf-8"><style>body{margin:0;background:#111217}svg{display:block;font-family:"DejaVu Sans",sans-serif}'
        f'</style><svg width="{width}" height="{height}" xmlns="http://www.w3.org/2000/svg"><rect width="100%" height="100%" fill="#111217"/>'
        + text(12, 32, dashboard["title"], 20, "#F7F8FA", weight="500") + text(360, 32, chosen, 13, "#9FA7B3")
        + text(width - 14, 32, span, 13, "#9FA7B3", "end") + f'<g transform="translate(0,52)">{body}</g></svg>')


def main():
    kept, out = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("no Chromium here: install Debian's package chromium")
    out.mkdir(parents=True, exist_ok=True)
    kept["variables"] = {"namespace": "default", "job": "watched"}
    with tempfile.TemporaryDirectory() as work:
        for file in sorted(DASHBOARDS.glob("*.json")):
            kept["name"] = file.stem
            width, height, content = page(json.loads(file.read_text()), kept)
            source, picture = pathlib.Path(work) / f"{file.stem}.html", out / f"dashboard-{file.stem}.png"
            source.write_text(content)
            subprocess.run([chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={work}/profile",
                            f"--window-size={width},{height}", f"--screenshot={picture}", source.as_uri()], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
            print(picture)


main()
