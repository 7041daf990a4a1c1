"""Plays the two AWS services that examples/telemetry/collector.yaml writes to: CloudWatch Logs, and a workspace of Amazon Managed
Prometheus, which passes on to a Prometheus. Who signs wrongly is refused as AWS refuses it: each request's Signature Version 4 is
computed again, from the rules of https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html."""

import hashlib
import hmac
import http.server
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

REGION, KEY, SECRET = "eu-test-1", "AKIAPITCREWTEST", "a-secret-of-nobody"
SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})")


def _mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def wrong_signature(method, target, headers, body, service):
    """Why AWS would refuse the request, or None."""
    found = SCOPE.fullmatch(headers.get("Authorization", ""))
    if not found:
        return f"no signature: {headers.get('Authorization')}"
    key, day, region, of, signed, signature = found.groups()
    if (key, region, of) != (KEY, REGION, service):
        return f"signed by {key} for {of} in {region}, not by {KEY} for {service} in {REGION}"
    path, _, query = target.partition("?")
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join([method, urllib.parse.quote(urllib.parse.quote(path, safe="/%"), safe="/") if "%" in path else path,
                           "&".join(f"{urllib.parse.quote(k, safe='')}={urllib.parse.quote(v, safe='')}" for k, v in pairs),
                           *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed.split(";")), "", signed,
                           hashlib.sha256(body).hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", headers.get("X-Amz-Date", ""), f"{day}/{region}/{of}/aws4_request",
                      hashlib.sha256(canonical.encode()).hexdigest()])
    mac = _mac(("AWS4" + SECRET).encode(), day)
    for part in (region, of, "aws4_request"):
        mac = _mac(mac, part)
    return None if hmac.compare_digest(_mac(mac, text).hex(), signature) else f"the signature does not match:\n{canonical}"


class Refused(Exception):
    """A client's fault: the service's name of it."""


class Aws:
    """What came, under a lock: events by log group, the actions asked for, and what was refused. Ends with `close`."""

    def __init__(self, prometheus):
        self.prometheus = prometheus  # host:port of the Prometheus behind the workspace
        self._lock, self._streams, self.actions, self.refusals, self.writes = threading.Lock(), {}, set(), [], 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.answer(*outer.serve(self.path, self.headers, body))

            def answer(self, code, text):
                self.send_response(code)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def events(self, group):
        """[(stream, timestamp in ms, message)]"""
        with self._lock:
            return [(stream, *event) for (of, stream), events in self._streams.items() if of == group for event in events]

    def serve(self, path, headers, body):
        service = "logs" if path == "/" else "aps"
        wrong = wrong_signature("POST", path, headers, body, service)
        if wrong:
            with self._lock:
                self.refusals.append(f"{path}: {wrong}")
            return 403, b'{"__type":"InvalidSignatureException","message":"refused"}'
        if service == "aps":
            return self._remote_write(path, headers, body)
        action = headers.get("X-Amz-Target", "").removeprefix("Logs_20140328.")
        try:
            with self._lock:
                self.actions.add(f"logs:{action}")
                return 200, json.dumps(self._logs(action, json.loads(body))).encode()
        except Refused as refusal:
            return 400, json.dumps({"__type": str(refusal), "message": f"{action}: {body[:200]!r}"}).encode()

    def _remote_write(self, path, headers, body):
        assert path == "/workspaces/ws-test/api/v1/remote_write", path
        kept = {name: headers[name] for name in ("Content-Type", "Content-Encoding", "X-Prometheus-Remote-Write-Version") if name in headers}
        request = urllib.request.Request(f"http://{self.prometheus}/api/v1/write", data=body, headers=kept)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                code, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            code, text = error.code, error.read()
        except OSError as error:
            return 503, str(error).encode()  # the test is over: it ends first
        with self._lock:
            self.writes += code < 300
            if code >= 300:
                self.refusals.append(f"{path}: Prometheus answers {code} {text[:300]!r}")
        return code, text

    def _logs(self, action, asked):
        group, stream = asked.get("logGroupName"), asked.get("logStreamName")
        groups = {of for of, _ in self._streams}
        if action == "CreateLogGroup":
            if group in groups:
                raise Refused("ResourceAlreadyExistsException")
            self._streams[(group, None)] = []
        elif action == "CreateLogStream":
            if group not in groups:
                raise Refused("ResourceNotFoundException")
            if (group, stream) in self._streams:
                raise Refused("ResourceAlreadyExistsException")
            self._streams[(group, stream)] = []
        elif action == "PutLogEvents":
            if (group, stream) not in self._streams:
                raise Refused("ResourceNotFoundException")
            return self._put(group, stream, asked["logEvents"])
        else:
            raise Refused("UnknownOperationException")
        return {}

    def _put(self, group, stream, events):
        """The rules of PutLogEvents: in order of time, within a day, no older than 14 days and no newer than two hours."""
        times = [event["timestamp"] for event in events]
        if not events or len(events) > 10000 or times != sorted(times) or times[-1] - times[0] > 24 * 3600 * 1000:
            self.refusals.append(f"PutLogEvents of {group}: {len(events)} events from {times[:1]} to {times[-1:]}")
            raise Refused("InvalidParameterException")
        now = time.time() * 1000
        if times[0] < now - 14 * 24 * 3600e3 or times[-1] > now + 2 * 3600e3:
            self.refusals.append(f"PutLogEvents of {group}: events too old or too new: {times[0]} to {times[-1]}")
        self._streams[(group, stream)] += [(event["timestamp"], event["message"]) for event in events]
        return {"nextSequenceToken": "1"}
