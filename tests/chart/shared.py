"""What the cases share: KUBECONFIG leads to an API server without controllers; kubectl and helm are on PATH."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pitcrew"
NAMESPACE = "pitcrew-system"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:pitcrew-operator"
WORK = Path(tempfile.mkdtemp(prefix="pitcrew-chart-"))
os.environ["HOME"] = str(WORK)  # kubectl's and helm's caches


def run(*command, text=None):
    """(exit code, output and errors together)"""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def good(*command, text=None):
    code, output = run(*command, text=text)
    assert code == 0, f"{' '.join(command)}: exit code {code}: {output}"
    return output


def refused(*command, text=None, saying):
    code, output = run(*command, text=text)
    assert code != 0, f"{' '.join(command)}: accepted: {output}"
    for words in saying:
        assert words in output, f"{' '.join(command)}: nothing says '{words}' in: {output}"


def kubectl(*arguments, text=None):
    return good("kubectl", *arguments, text=text)


def kubeconfig_of(account, namespace=NAMESPACE):
    """A kubeconfig that is a service account."""
    token = kubectl("-n", namespace, "create", "token", account).strip()
    config = json.loads(good("kubectl", "config", "view", "--raw", "--minify", "-o", "json"))
    config["users"] = [{"name": "account", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "account"
    path = WORK / f"{account}.kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


CASES = []


def case(function):
    CASES.append(function)
    return function
