"""Serves what node agents would show, one port a node: `dashboards_agent_page` makes the pages with the agent's own code."""
import http.server
import pathlib
import subprocess
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        command = [server.program, server.node, f"{time.time() - server.began:.1f}"]
        if server.node in server.pods:
            command.append(server.pods[server.node])
        body = subprocess.run(command, check=True, capture_output=True, timeout=5).stdout
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except BrokenPipeError:
            pass  # Prometheus did not wait

    def log_message(self, *arguments):
        pass


def serve(program, nodes, pods):
    """Addresses by node; `pods` says who uses a node's GPUs, and may change."""
    addresses = {}
    for node in nodes:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.program, server.node, server.pods, server.began = str(pathlib.Path(program)), node, pods, time.time()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        addresses[node] = f"127.0.0.1:{server.server_port}"
    return addresses
