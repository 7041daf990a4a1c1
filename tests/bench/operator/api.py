"""Calls to the API server, on one kept connection: kubectl takes longer to start than what is measured here."""

import http.client
import json
import ssl
import time

from harness.config import Failed

_PATCH = "application/merge-patch+json"
_KEPT = 30  # seconds; the API server closes connections that were idle for 90


class Api:
    def __init__(self, control):
        context = ssl.create_default_context(cafile=control.pki.path("ca.crt"))
        context.load_cert_chain(control.pki.path("admin.crt"), control.pki.path("admin.key"))
        self._connection = http.client.HTTPSConnection(control.outside, control.ports.api, timeout=60, context=context)
        self._used = time.monotonic()

    def call(self, method, path, body=None, missing_is_none=False, content="application/json", accept=None):
        """The decoded answer, or its text where it isn't JSON."""
        data = None if body is None else json.dumps(body)
        headers = {"Accept": accept} if accept else {}
        if data:
            headers["Content-Type"] = content
        if time.monotonic() - self._used > _KEPT:
            self._connection.close()
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            text = answer.read().decode()
            self._used = time.monotonic()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        if missing_is_none and answer.status == 404:
            return None
        if answer.status >= 300:
            raise Failed(f"{method} {path} was answered with {answer.status}: {text[:500]}")
        return json.loads(text) if text.startswith("{") else text

    def get(self, path):
        return self.call("GET", path, missing_is_none=True)

    def table(self, path):
        """{name: {column: cell}} of a list, from the server's cache: a small part of what whole objects cost it."""
        found = self.call("GET", f"{path}?resourceVersion=0&includeObject=None", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
        columns = [column["name"] for column in found["columnDefinitions"]]
        rows = [dict(zip(columns, row["cells"])) for row in found.get("rows") or []]
        return {row["Name"]: row for row in rows}

    def create(self, path, body):
        return self.call("POST", path, body)

    def patch(self, path, body):
        return self.call("PATCH", path, body, content=_PATCH)

    def delete(self, path, propagation="Background"):
        return self.call("DELETE", path, {"propagationPolicy": propagation}, missing_is_none=True)
