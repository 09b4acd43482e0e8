#!/usr/bin/env python3
"""Resident memory that an idle keep-alive connection costs: N connections, one request on each, then silence.

usage: idle_memory.py path/to/goma [N]      (needs python3; traffic on loopback only; ends by itself)
"""
import http.server, os, resource, socket, subprocess, sys, tempfile, threading, time

count = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count * 2 + 1000), hard))


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def rss(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])


def request(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nHost: idle.test\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n")
    reply = b""
    while not reply.endswith(b"ok"):
        piece = connection.recv(4096)
        assert piece, "the gateway closed a connection"
        reply += piece


origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
threading.Thread(target=origin.serve_forever, daemon=True).start()
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
    config.write(f"""
gateway:
  entryPoints: {{web: {{address: "127.0.0.1:{port}"}}}}
  timeouts: {{idle: 600}}
  routes:
    - {{name: r, path: /, target: "http://127.0.0.1:{origin.server_port}"}}
""")
    config.flush()
    gateway = subprocess.Popen([sys.argv[1], "server", "-c", config.name], stdout=subprocess.DEVNULL)
    try:
        connections = []
        for _ in range(200):
            try:
                connections.append(socket.create_connection(("127.0.0.1", port), 1))
                break
            except OSError:
                time.sleep(0.05)
        for _ in range(2000):
            request(connections[0])
        time.sleep(2)
        before = rss(gateway.pid)
        for _ in range(count):
            connections.append(socket.create_connection(("127.0.0.1", port), 5))
            request(connections[-1])
        time.sleep(15)
        after = rss(gateway.pid)
        print(f"{count} idle connections: {(after - before) / count:.2f} KiB each ({before} -> {after} KiB)")
    finally:
        gateway.terminate()
        gateway.wait(40)
