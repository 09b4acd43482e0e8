#!/usr/bin/env python3
"""Resident memory that an idle keep-alive connection costs: N connections, one request on each, then silence.

usage: idle_memory.py path/to/goma|nginx [N] [--tls]

`nginx` measures that instead (the Debian package), for comparison. With --tls the connections speak TLS 1.3 with a P-256
certificate. Needs python3, with --tls openssl; traffic on loopback only; ends by itself.
"""
import http.server, os, resource, shutil, socket, ssl, subprocess, sys, tempfile, threading, time

arguments = [argument for argument in sys.argv[1:] if argument != "--tls"]
tls = "--tls" in sys.argv
count = int(arguments[1]) if len(arguments) > 1 else 10_000
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count * 2 + 1000), hard))


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


def rss(pid):
    """Of a process and its children, KiB."""
    total = 0
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            total += int(line.split()[1])
    for child in open(f"/proc/{pid}/task/{pid}/children").read().split():
        total += rss(int(child))
    return total


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(timeout):
    plain = socket.create_connection(("127.0.0.1", port), timeout)
    return context.wrap_socket(plain, server_hostname="idle.test") if tls else plain


def request(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nHost: idle.test\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n")
    reply = b""
    while not reply.endswith(b"ok"):
        piece = connection.recv(4096)
        assert piece, "the gateway closed a connection"
        reply += piece


def goma(folder):
    entry = "webSecure" if tls else "web"
    other = "web" if tls else "webSecure"
    keys = f"  tls: {{default: {{cert: {folder}/cert.pem, key: {folder}/key.pem}}}}\n" if tls else ""
    with open(f"{folder}/goma.yml", "w") as config:
        config.write(f"""gateway:
  entryPoints: {{{entry}: {{address: "127.0.0.1:{port}"}}, {other}: {{address: "127.0.0.1:{free_port()}"}}}}
  timeouts: {{idle: 600}}
{keys}  routes:
    - {{name: r, path: /, target: "http://127.0.0.1:{origin.server_port}"}}
""")
    return [arguments[0], "server", "-c", f"{folder}/goma.yml"]


def nginx(folder):
    ssl_ = f"ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem" if tls else ""
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in
                         ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(f"{folder}/nginx.conf", "w") as config:
        config.write(f"""daemon off; worker_processes 1; worker_rlimit_nofile {count * 2 + 1000}; pid {folder}/pid; error_log {folder}/err;
events {{ worker_connections {count + 100}; }}
http {{ access_log off; keepalive_timeout 600; keepalive_requests 1000000; {temporary}
 upstream origin {{ server 127.0.0.1:{origin.server_port}; keepalive 8; }} proxy_http_version 1.1; proxy_set_header Connection "";
 server {{ listen 127.0.0.1:{port} {ssl_}; location / {{ proxy_pass http://origin; }} }} }}
""")
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-c", f"{folder}/nginx.conf", "-p", folder]


origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
threading.Thread(target=origin.serve_forever, daemon=True).start()
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
port = free_port()
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    if tls:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                        f"{folder}/key.pem", "-out", f"{folder}/cert.pem", "-days", "30", "-subj", "/CN=idle.test",
                        "-addext", "subjectAltName=DNS:idle.test"], check=True, capture_output=True)
    command = nginx(folder) if arguments[0] == "nginx" else goma(folder)
    gateway = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        connections = []
        for _ in range(200):
            try:
                connections.append(connect(1))
                break
            except OSError:
                time.sleep(0.05)
        for _ in range(2000):
            request(connections[0])
        time.sleep(2)
        before = rss(gateway.pid)
        for _ in range(count):
            connections.append(connect(5))
            request(connections[-1])
        time.sleep(15)
        after = rss(gateway.pid)
        kind = "idle TLS connections" if tls else "idle connections"
        print(f"{count} {kind}: {(after - before) / count:.2f} KiB each ({before} -> {after} KiB)")
    finally:
        gateway.terminate()
        gateway.wait(40)
