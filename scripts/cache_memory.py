#!/usr/bin/env python3
"""Growth of resident memory of a full HTTP cache after churn, beside its limit.

usage: cache_memory.py [--goma target/release/goma] [--limit 256] [--seconds 60]

Starts an origin and a gateway with an empty `httpCache` on loopback, asks for ever new objects of 200 bytes to 120 KB for so
many seconds, and prints how much the resident memory has grown over that of the empty start: at most 1.2 times the limit.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import socket
import subprocess
import tempfile
import time
import urllib.request

SIZES = [200, 800, 2_000, 6_000, 15_000, 40_000, 120_000]


class Origin(asyncio.Protocol):
    """Answers `/SIZE/NAME` with so many bytes."""

    def connection_made(self, transport):
        self.transport, self.left = transport, b""

    def data_received(self, data):
        self.left += data
        while b"\r\n\r\n" in self.left:
            head, self.left = self.left.split(b"\r\n\r\n", 1)
            size = int(head.split(b" ", 2)[1].split(b"/")[1])
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=3600\r\nETag: \"%d\"\r\n"
                b"Content-Length: %d\r\n\r\n" % (size, size) + b"x" * size
            )


def origin(port):
    async def serve():
        server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


def churn(port, until, seed):
    """Asks for objects: nine of ten new, one of ten from a small popular set."""
    pick, number = random.Random(seed), 0
    with socket.create_connection(("127.0.0.1", port)) as client:
        reader = client.makefile("rb")
        while time.time() < until:
            number += 1
            name = f"hot{pick.randrange(500)}" if pick.random() < 0.1 else f"{seed}-{number}"
            size = SIZES[hash(name) % len(SIZES)]
            client.sendall(f"GET /{size}/{name} HTTP/1.1\r\nHost: cache.test\r\n\r\n".encode())
            length = 0
            while (line := reader.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert len(reader.read(length)) == size


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) * 1024


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--goma", default="target/release/goma")
    options.add_argument("--limit", type=int, default=256, help="memoryLimit in MiB")
    options.add_argument("--seconds", type=int, default=60)
    options = options.parse_args()
    backend, web = free_port(), free_port()
    processes = [multiprocessing.Process(target=origin, args=(backend,), daemon=True)]
    processes[0].start()
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "goma.yml")
        with open(config, "w") as file:
            file.write(
                f"version: 2\ngateway:\n  entryPoints: {{web: {{address: '127.0.0.1:{web}'}}}}\n"
                "  cache: {enabled: true, token: t}\n  routes:\n"
                f"    - {{name: r, path: /, target: 'http://127.0.0.1:{backend}', middlewares: [cache]}}\n"
                "middlewares:\n  - {name: cache, type: httpCache, paths: ['/*'], rule: "
                f"{{maxTtl: 3600, memoryLimit: {options.limit}Mi}}}}\n"
            )
        gateway = subprocess.Popen([options.goma, "server", "-c", config], env={**os.environ, "GOMA_LOG_LEVEL": "off"})
        try:
            time.sleep(1)
            # What a first few requests leave behind is not the cache's.
            churn(web, time.time() + 0.2, 999)
            request = urllib.request.Request(
                f"http://127.0.0.1:{web}/gateway/cache?all=true", method="POST", headers={"Authorization": "Bearer t"}
            )
            urllib.request.urlopen(request).read()
            time.sleep(1)
            empty, until = resident(gateway.pid), time.time() + options.seconds
            clients = [multiprocessing.Process(target=churn, args=(web, until, seed)) for seed in range(6)]
            [client.start() for client in clients]
            peak = empty
            while any(client.is_alive() for client in clients):
                time.sleep(0.5)
                peak = max(peak, resident(gateway.pid))
            full = resident(gateway.pid)
            request = urllib.request.Request(
                f"http://127.0.0.1:{web}/gateway/cache", headers={"Authorization": "Bearer t"}
            )
            [cache] = json.load(urllib.request.urlopen(request))["caches"]
        finally:
            gateway.terminate()
            gateway.wait()
            processes[0].terminate()
    limit = options.limit << 20
    mib = 1 << 20
    print(
        f"empty {empty / mib:.1f} MiB, full {full / mib:.1f} MiB (peak {peak / mib:.1f}); growth {(full - empty) / limit:.2f} x "
        f"limit, peak {(peak - empty) / limit:.2f}; counted {cache['bytes'] / mib:.1f} MiB in {cache['entries']} entries, "
        f"{cache['evicted']} evicted"
    )
    assert full - empty <= 1.2 * limit


if __name__ == "__main__":
    main()
