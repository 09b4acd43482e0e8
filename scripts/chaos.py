#!/usr/bin/env python3
"""What clients notice when one of three backends goes bad under constant load, and when it is well again.

usage: chaos.py path/to/goma [SECONDS]      (needs python3; traffic on loopback only; ends by itself)

Each fault lasts SECONDS (default 10), then the backend is well for as long. Backends are processes of their own, so that they
can be stopped (SIGSTOP) and killed for real. Prints a line a fault: requests, errors, the slowest answers, and the time until
the backend got its share again.
"""
import asyncio, os, signal, socket, subprocess, sys, tempfile, time

ORIGIN = r'''
import asyncio, os, socket, struct, sys
port, control = int(sys.argv[1]), sys.argv[2]
served = 0
async def serve(reader, writer):
    global served
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            served += 1
            mode = open(control).read().strip()
            if mode == "slow":
                await asyncio.sleep(5)
            if mode == "reset":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return writer.close()
            if mode == "cut":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
                return writer.close()
            if mode == "fail":
                writer.write(b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
async def count():
    while True:
        await asyncio.sleep(0.1)
        with open(control + ".new", "w") as out:
            out.write(str(served))
        os.replace(control + ".new", control + ".served")
async def main():
    asyncio.get_running_loop().create_task(count())
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()
asyncio.run(main())
'''

CONFIG = """
version: 2
gateway:
  entryPoints: {web: {address: "127.0.0.1:PORT"}}
  routes:
    - name: chaos
      path: /
      backends: [{endpoint: "http://127.0.0.1:A"}, {endpoint: "http://127.0.0.1:B"}, {endpoint: "http://127.0.0.1:C"}]
      timeouts: {connect: 1s}
      retry: {attempts: 3, perTryTimeout: 1s}
      outlier: {failures: 5, ejection: 2s, maxEjection: 8s}
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: chaos.test\r\n\r\n"
CLIENTS = 32


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Backend:
    def __init__(self, folder, name):
        self.port, self.control = free_port(), os.path.join(folder, name)
        self.mode("well")
        self.start()

    def start(self):
        self.process = subprocess.Popen([sys.executable, "-c", ORIGIN, str(self.port), self.control])

    def mode(self, mode):
        with open(self.control + ".mode", "w") as out:
            out.write(mode)
        os.replace(self.control + ".mode", self.control)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def served(self):
        try:
            return int(open(self.control + ".served").read())
        except (OSError, ValueError):
            return 0


class Load:
    def __init__(self, port):
        self.port, self.answered, self.errors, self.times, self.going = port, 0, [], [], True

    async def client(self):
        reader = writer = None
        while self.going:
            begin = time.monotonic()
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(REQUEST)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
                await asyncio.wait_for(reader.readexactly(length), 30)
                status = int(head.split(b" ", 2)[1])
                if status == 200:
                    self.answered += 1
                else:
                    self.errors.append(status)
                if b"connection: close" in head.lower():
                    writer.close()
                    writer = None
            except Exception as error:
                self.errors.append(type(error).__name__)
                if writer is not None:
                    writer.close()
                writer = None
            self.times.append(time.monotonic() - begin)

    def take(self):
        taken = self.answered, self.errors, sorted(self.times)
        self.answered, self.errors, self.times = 0, [], []
        return taken


async def share(backend, all_of):
    """Seconds until the backend serves at least a quarter of half a second's requests; None after 60."""
    begin = time.monotonic()
    while time.monotonic() - begin < 60:
        before, answered = backend.served(), all_of.answered
        await asyncio.sleep(0.5)
        if backend.served() - before >= (all_of.answered - answered) / 4 > 0:
            return time.monotonic() - begin
    return None


async def main(goma, seconds):
    with tempfile.TemporaryDirectory() as folder:
        one, two, three = (Backend(folder, name) for name in "abc")
        port = free_port()
        config = CONFIG.replace("PORT", str(port))
        for letter, backend in zip("ABC", (one, two, three)):
            config = config.replace(f":{letter}\"", f":{backend.port}\"")
        path = os.path.join(folder, "goma.yml")
        with open(path, "w") as out:
            out.write(config)
        time.sleep(1)
        gateway = subprocess.Popen([goma, "server", "-c", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        load = Load(port)
        try:
            await asyncio.sleep(1.5)
            clients = [asyncio.create_task(load.client()) for _ in range(CLIENTS)]
            await asyncio.sleep(2)
            load.take()
            total = failed = 0
            faults = ["none", "kill", "stop", "reset", "cut", "slow", "fail", "flap"]
            print(f"{'fault':6} {'requests':>9} {'errors':>7} {'rate':>9} {'p50 ms':>7} {'p99 ms':>8} {'max ms':>8} {'share again':>12}")
            for fault in faults:
                end = time.monotonic() + seconds
                if fault == "kill":
                    one.kill()
                elif fault == "stop":
                    one.process.send_signal(signal.SIGSTOP)
                elif fault == "flap":
                    while time.monotonic() < end:
                        one.kill()
                        await asyncio.sleep(0.5)
                        one.start()
                        await asyncio.sleep(0.5)
                elif fault != "none":
                    one.mode(fault)
                await asyncio.sleep(max(0, end - time.monotonic()))
                answered, errors, times = load.take()
                if fault == "kill":
                    one.start()
                elif fault == "stop":
                    one.process.send_signal(signal.SIGCONT)
                one.mode("well")
                again = await share(one, load)
                await asyncio.sleep(seconds / 2)
                after, late, _ = load.take()
                total, failed = total + answered + len(errors), failed + len(errors)
                at = lambda part: times[min(len(times) - 1, int(len(times) * part))] * 1000
                rate = len(errors) / max(1, answered + len(errors))
                again = "never" if again is None else f"{again:.1f} s"
                print(f"{fault:6} {answered:9} {len(errors):7} {rate:9.4%} {at(.5):7.1f} {at(.99):8.1f} {times[-1] * 1000:8.1f} {again:>12}"
                      + (f"   {sorted(set(map(str, errors)))}" if errors else "") + (f"   later: {len(late)}" if late else ""), flush=True)
            load.going = False
            await asyncio.gather(*clients)
            print(f"in all {total} requests, {failed} errors: {failed / total:.4%}")
            return failed / total < 0.001
        finally:
            gateway.kill()
            for backend in (one, two, three):
                backend.process.send_signal(signal.SIGCONT)
                backend.kill()


if __name__ == "__main__":
    good = asyncio.run(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 10))
    sys.exit(0 if good else 1)
