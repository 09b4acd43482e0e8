#!/usr/bin/env python3
"""What a plain route costs while 1,000 clients log in at once with passwords that bcrypt checks.

The passwords are hashed by a few threads of low priority behind a bounded queue; whoever finds it full gets 503 with
Retry-After. Goal: the 99th percentile of the plain route stays within twice of what it is without the logins.

usage: login_latency.py path/to/goma [rounds]      (needs python3 and two quiet processors; loopback only; ends by itself)
"""
import base64, collections, multiprocessing, os, resource, selectors, socket, statistics, subprocess, sys, tempfile, time

LOGINS = 1000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
# Of `password`, with cost 10: what htpasswd -B -C 10 makes takes as long.
HASH = "$2y$10$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu"
PLAIN = b"GET /open HTTP/1.1\r\nHost: login.test\r\n\r\n"
CONFIG = """version: 2
gateway:
  log: {{level: error}}
  routes:
    - {{name: open, path: /open, target: 'http://127.0.0.1:{origin}'}}
    - {{name: staff, path: /, target: 'http://127.0.0.1:{origin}', middlewares: [staff]}}
middlewares:
  - {{name: staff, type: basicAuth, rule: {{users: [{{username: ann, password: '{hash}'}}]}}}}
"""


def origin(listener):
    connections = selectors.DefaultSelector()
    connections.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in connections.select():
            if key.fileobj is listener:
                connections.register(listener.accept()[0], selectors.EVENT_READ)
            elif key.fileobj.recv(65536):
                key.fileobj.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            else:
                connections.unregister(key.fileobj)
                key.fileobj.close()


def log_in(port, round_, go, results):
    """Opens all connections, sends all logins at once when told, and counts the answers."""
    waiting = selectors.DefaultSelector()
    requests = []
    for n in range(LOGINS):
        login = base64.b64encode(f"ann:wrong-{round_}-{n}".encode()).decode()
        connection = socket.create_connection(("127.0.0.1", port))
        waiting.register(connection, selectors.EVENT_READ)
        requests.append((connection, f"GET / HTTP/1.1\r\nHost: login.test\r\nAuthorization: Basic {login}\r\n\r\n".encode()))
    results.put("ready")
    go.wait()
    for connection, request in requests:
        connection.sendall(request)
    statuses, left = collections.Counter(), LOGINS
    while left:
        for key, _ in waiting.select():
            reply = key.fileobj.recv(65536)
            status = reply.split(b" ", 2)[1].decode() if reply else "closed"
            retry = b"retry-after: 1\r\n" in reply.lower()
            statuses[status + (" with Retry-After" if retry else "")] += 1
            waiting.unregister(key.fileobj)
            left -= 1
    results.put(statuses)


def measure(port, enough):
    """Milliseconds of one request after the other on a connection that is kept."""
    connection, took = socket.create_connection(("127.0.0.1", port)), []
    while not enough(took):
        started = time.perf_counter()
        connection.sendall(PLAIN)
        reply = connection.recv(65536)
        while not reply.endswith(b"ok"):
            reply += connection.recv(65536)
        took.append((time.perf_counter() - started) * 1000)
    return took


def percentile(took, share):
    return sorted(took)[int(len(took) * share)]


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    multiprocessing.Process(target=origin, args=(listener,), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as other:
        port, unused = free.getsockname()[1], other.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/goma.yml", "w") as file:
            file.write(CONFIG.format(origin=listener.getsockname()[1], hash=HASH))
        env = {**os.environ, "GOMA_ENTRYPOINT_WEB_ADDRESS": f"127.0.0.1:{port}",
               "GOMA_ENTRYPOINT_WEB_SECURE_ADDRESS": f"127.0.0.1:{unused}"}
        gateway = subprocess.Popen([os.path.abspath(sys.argv[1]), "server", "-c", f"{folder}/goma.yml"], env=env,
                                   stdout=subprocess.DEVNULL)
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            report(port)
        finally:
            gateway.kill()
            gateway.wait()


def report(port):
    measure(port, lambda took: len(took) == 2000)
    ratios = []
    for round_ in range(ROUNDS):
        quiet = measure(port, lambda took: len(took) == 5000)
        go, results = multiprocessing.Event(), multiprocessing.Queue()
        clients = multiprocessing.Process(target=log_in, args=(port, round_, go, results))
        clients.start()
        results.get()
        go.set()
        busy = measure(port, lambda _: not results.empty())
        statuses = results.get()
        clients.join()
        ratios.append(percentile(busy, 0.99) / percentile(quiet, 0.99))
        for name, took in [("alone", quiet), ("beside the logins", busy)]:
            print(f"round {round_ + 1}, {name}: p50 {percentile(took, 0.5):.3f} ms, p99 {percentile(took, 0.99):.3f} ms, "
                  f"worst {max(took):.1f} ms, {len(took)} requests")
        print(f"round {round_ + 1}, logins: {dict(statuses)}")
    ratio = statistics.median(ratios)
    print(f"p99 beside the logins is {ratio:.2f} times that alone (goal: at most 2)")
    sys.exit(0 if ratio <= 2 else 1)


if __name__ == "__main__":
    main()
