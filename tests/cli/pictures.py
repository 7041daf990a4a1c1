#!/usr/bin/env python3
"""Takes pictures of what commands print, as a terminal shows it: pictures.py OUT.png COLUMNS < text with colours."""
import html
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

STYLES = {"1": "font-weight:bold", "2": "color:#8a8a8a", "31": "color:#ff6b68", "32": "color:#6ac46a", "33": "color:#e5c07b", "0": ""}


def marked(text):
    out, open_ = "", False
    for part in re.split(r"(\x1b\[\d+m)", text):
        code = re.fullmatch(r"\x1b\[(\d+)m", part)
        if not code:
            out += html.escape(part)
            continue
        out += "</span>" if open_ else ""
        open_ = code[1] != "0"
        out += f'<span style="{STYLES.get(code[1], "")}">' if open_ else ""
    return out + ("</span>" if open_ else "")


picture, columns, text = sys.argv[1], int(sys.argv[2]), sys.stdin.read()
chromium = shutil.which("chromium") or sys.exit("no Chromium here: install Debian's package chromium")
with tempfile.TemporaryDirectory() as work:
    page = pathlib.Path(work) / "page.html"
    page.write_text('<meta charset="utf-8"><style>body{margin:14px;background:#1e1e1e}pre{margin:0;color:#d4d4d4;'
                    f'font:14px/18px "DejaVu Sans Mono";width:{columns}ch;border-right:1px dotted #444}}</style><pre>{marked(text)}</pre>')
    subprocess.run([chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={work}/profile",
                    f"--window-size={int(columns * 8.43) + 40},{18 * (text.count(chr(10)) + 1) + 30}", f"--screenshot={picture}", page.as_uri()],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
