#!/usr/bin/env python3
"""Executes the Dockerfile where there is no container engine, and tries what came out of it. Debian, as root.

    scripts/image_without_engine.py [--target DIR] [--base ROOT] [--binary FILE] [--root]

The build stage runs with the machine's own Rust in a copy of the context (as .dockerignore leaves it); --target is a cargo target
folder with dependencies to reuse, --binary a stripped binary that stands in for the whole stage. The run-time stage runs in a clean
root made by debootstrap (--base: one that is there already), step by step with chroot; what `debian:*-slim` leaves out is left out.
Then the image's command runs as process 1 of a PID namespace with the image's user and environment: health check, orphans, drain.
"""
import argparse
import fnmatch
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent.parent


def stages(text):
    """Steps by stage, each (instruction, arguments)."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    found, name = {"": []}, ""
    for line in filter(None, map(str.strip, text.splitlines())):
        step, rest = line.split(None, 1)
        if step == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = [("FROM", base)]
        else:
            found[name].append((step, rest))
    return found


def context(into):
    """Copies what .dockerignore lets through."""
    rules = [line for line in (HERE / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for entry in HERE.iterdir():
        kept = True
        for rule in rules:
            if fnmatch.fnmatch(entry.name, rule.lstrip("!")):
                kept = rule.startswith("!")
        if kept:
            (shutil.copytree if entry.is_dir() else shutil.copy2)(entry, into / entry.name)


def build(steps, folder, target):
    """The build stage in `folder`: its absolute paths lie there."""
    source, away = folder / "src", folder / "context"
    source.mkdir()
    away.mkdir()
    context(away)
    (source / "target").symlink_to(target)
    inside = lambda text: re.sub(r"(?<![\w./])/(goma|build-env)\b", lambda m: str(folder / m.group(1)), text)
    for step, rest in steps:
        if step == "COPY":
            *names, _ = rest.split()
            for name in ([entry.name for entry in away.iterdir()] if names == ["."] else names):
                entry = away / name
                if entry.is_dir():
                    shutil.copytree(entry, source / name, dirs_exist_ok=True)
                else:
                    shutil.copy2(entry, source / name)
        elif step == "RUN":
            print("build |", rest[:110], flush=True)
            environment = {**os.environ, "TARGETARCH": "amd64", "COMMIT": "local"}
            # What is installed there is here already, or is asked for.
            if "apt-get" not in rest:
                subprocess.run(["sh", "-ec", inside(rest)], cwd=source, env=environment, check=True)
    return folder / "goma"


def clean_root(root, base):
    if base:
        subprocess.run(["cp", "-a", base, root], check=True)
    else:
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], check=True, stdout=subprocess.DEVNULL)
    for name in ("doc", "man", "info", "locale", "lintian", "groff"):
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    for name in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    # As Debian's images have it: no index of packages is kept.
    (root / "etc/apt/apt.conf.d/docker-clean").write_text('Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n')
    shutil.copy2("/etc/resolv.conf", root / "etc/resolv.conf")


def assemble(all_steps, root, binary):
    """The run-time stage; what it says about running."""
    image = {"ENV": {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, "USER": "0"}
    for step, rest in all_steps:
        print("run   |", step, rest[:110], flush=True)
        if step == "RUN":
            quiet = {"DEBIAN_FRONTEND": "noninteractive", **image["ENV"]}
            subprocess.run(["chroot", root, "sh", "-ec", rest], check=True, env=quiet, stdout=subprocess.DEVNULL)
        elif step == "COPY":
            words = rest.split()
            assert words[:2] == ["--from=build", "/goma"], rest
            shutil.copy2(binary, root / words[2].lstrip("/"))
        elif step == "ENV":
            image["ENV"].update(pair.split("=", 1) for pair in shlex.split(rest))
        elif step == "HEALTHCHECK":
            image[step] = eval(rest[rest.index("CMD") + 3 :])  # noqa: S307 - a JSON list in a file of ours
        elif step in ("ENTRYPOINT", "CMD"):
            image[step] = eval(rest)  # noqa: S307
        elif step in ("USER", "STOPSIGNAL"):
            image[step] = rest
    return image


class Container:
    """The image's command as process 1 of a PID namespace in its root."""

    def __init__(self, root, image):
        self.root, self.image = root, image
        user = {"root": "0:0"}.get(image["USER"], image["USER"])
        self.enter = ["chroot", f"--userspec={user}", root, "env", "-i"]
        self.enter += [f"{name}={value}" for name, value in image["ENV"].items()]
        (root / "proc").mkdir(exist_ok=True)
        command = ["unshare", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc"]
        self.outer = subprocess.Popen(command + self.enter + image["ENTRYPOINT"] + image["CMD"])

    def init(self):
        children = pathlib.Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def run(self, command):
        inside = ["nsenter", "-t", str(self.init()), "-p", "-m"]
        return subprocess.run(inside + self.enter + command, capture_output=True, text=True)

    def healthy(self):
        return self.run(self.image["HEALTHCHECK"]).returncode == 0

    def children(self):
        """Those of process 1, zombies among them."""
        init = self.init()
        threads = pathlib.Path(f"/proc/{init}/task").iterdir()
        return [child for thread in threads for child in (thread / "children").read_text().split()]


def until(what, condition, limit=30):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"never happened: {what}")
        time.sleep(0.05)


def status(path):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:8080{path}", timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def attempt(root, image):
    (root / "etc/goma/goma.yml").write_text(
        "version: 2\ngateway:\n  entryPoints: {web: {address: '127.0.0.1:8080'}, webSecure: {address: '127.0.0.1:8443'}}\n"
        "  routes: [{name: a, path: /, target: 'http://127.0.0.1:9'}]\n"
    )
    container = Container(root, image)
    until("healthy", container.healthy)
    print("healthy by its own health check, process 1 of its namespace:", container.run(["/goma", "version"]).stdout.split("\n")[0])
    refused = container.run(["/goma", "upgrade", "--pid", "1"])
    assert refused.returncode == 1 and "roll a new image out" in refused.stderr, refused
    print("upgrade refused in a container:", refused.stderr.strip())
    container.run(["sh", "-c", "for i in 1 2 3; do sleep 1 >/dev/null 2>&1 & done"])
    until("orphans are its children", lambda: len(container.children()) == 3)
    until("orphans are reaped", lambda: not container.children())
    print("three orphans became its children and were reaped")
    begin = time.monotonic()
    os.kill(container.init(), signal.SIGTERM)
    until("not ready", lambda: status("/readyz") == 503)
    assert status("/healthz") == 200
    code = container.outer.wait(30)
    took = time.monotonic() - begin
    assert code == 0 and 5 <= took < 15, (code, took)
    print(f"SIGTERM: 503 on /readyz while it serves, then exit code {code} after {took:.1f} s")


def weigh(root, binary):
    size = lambda command: int(subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout.split()[0])
    whole = size(f"du -sxk --apparent-size --exclude=./proc/* {root}") / 1024
    packed = size(f"tar -C {root} --exclude=./proc -cf - . | gzip -6 | wc -c") / 2**20
    print(f"image: {whole:.0f} MiB, {packed:.0f} MiB compressed; the binary in it {binary.stat().st_size / 2**20:.1f} MiB")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--target", type=pathlib.Path, default=HERE / "target")
    options.add_argument("--base", type=pathlib.Path)
    options.add_argument("--binary", type=pathlib.Path)
    options.add_argument("--root", action="store_true", help="the variant that runs as root")
    options = options.parse_args()
    found = stages((HERE / "Dockerfile").read_text())
    with tempfile.TemporaryDirectory(prefix="goma-image-") as folder:
        folder = pathlib.Path(folder)
        folder.chmod(0o755)
        binary = options.binary or build(found["build"], folder, options.target.resolve())
        root = folder / "root"
        clean_root(root, options.base)
        last = found["root" if options.root else "unprivileged"]
        image = assemble(found["base"][1:] + last[1:], root, binary)
        weigh(root, binary)
        attempt(root, image)


if __name__ == "__main__":
    main()
