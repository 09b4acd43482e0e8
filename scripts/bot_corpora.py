#!/usr/bin/env python3
"""Measures bot detection on public lists of user agents that it was not made from.

    scripts/bot_corpora.py [-v]

Fetches the packages below with pip and npm into a temporary folder, writes one file of user agents a list, and runs the
example `bot_corpora` on them. The list of known bots comes from crawler-user-agents; the crawlers to find are those of
device-detector and woothee, the browsers and devices not to find are those of both and of three lists of real browsers.
With -v every user agent that was judged wrongly is shown.
"""

import glob
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

try:
    import yaml
except ImportError:
    sys.exit("needs PyYAML: pip install pyyaml")

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PIP = ["device_detector==6.5.1", "fake_useragent==2.2.0"]
NPM = ["woothee@1.11.1", "top-user-agents@2.1.138", "user-agents@2.1.198"]
# Kinds of device-detector's test sets that are browsers or devices; feed readers, players and the like are neither.
DEVICES = """desktop smartphone tablet phablet tv wearable console car_browser feature_phone camera portable_media_player
smart_display smart_speaker peripheral""".split()


def fetch(folder):
    run = lambda *command: subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    for package in PIP:
        run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package)
    for package in NPM:
        run("npm", "pack", "--silent", package)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / wheel.name.split("-")[0])
    for package in folder.glob("*.tgz"):
        tarfile.open(package).extractall(folder / package.name.rsplit("-", 1)[0], filter="data")


def read_yaml(pattern, key):
    for path in sorted(glob.glob(str(pattern))):
        for case in yaml.load(pathlib.Path(path).read_text(), Loader=LOADER):
            yield case.get(key)


def lists(folder):
    fixtures = folder / "device_detector/device_detector/tests/fixtures/upstream"
    yield "+device-detector", read_yaml(fixtures / "bots.yml", "user_agent")
    for kind in DEVICES:
        names = [fixtures / f"{kind}.yml", fixtures / f"{kind}-[0-9]*.yml"]
        yield f"-device-detector {kind}", (agent for name in names for agent in read_yaml(name, "user_agent"))
    sets = folder / "woothee/package/woothee/testsets"
    yield "+woothee", read_yaml(sets / "crawler*.yaml", "target")
    for kind in ("smartphone", "mobilephone", "pc", "appliance"):
        yield f"-woothee {kind}", read_yaml(sets / f"{kind}*.yaml", "target")
    yield "-top-user-agents", json.loads((folder / "top-user-agents/package/src/index.json").read_text())
    agents = json.loads((folder / "user-agents/package/dist/user-agents.json").read_text())
    yield "-user-agents", (agent["userAgent"] for agent in agents)
    browsers = (folder / "fake_useragent/fake_useragent/data/browsers.jsonl").read_text().splitlines()
    yield "-fake-useragent", (json.loads(line)["useragent"] for line in browsers)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        fetch(folder)
        files = []
        for title, agents in lists(folder):
            lines = sorted({" ".join(agent.split()) for agent in agents if isinstance(agent, str) and agent.strip()})
            files.append(folder / f"{title}.txt")
            files[-1].write_text("\n".join(lines) + "\n")
        command = ["cargo", "run", "--quiet", "--example", "bot_corpora", "--", *sys.argv[1:], *map(str, files)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    totals = {"+": [0, 0], "-": [0, 0]}
    for line in output.splitlines():
        if line.startswith("\t"):
            print(line)
            continue
        title, agents, found = line.split("\t")
        totals[title[0]][0] += int(agents)
        totals[title[0]][1] += int(found)
        print(f"{title:38}{agents:>7} user agents, {int(found):>6} taken for bots, {100 * int(found) / int(agents):6.2f} %")
    for sign, title in (("+", "crawlers"), ("-", "browsers and devices")):
        agents, found = totals[sign]
        print(f"all {title:34}{agents:>7} user agents, {found:>6} taken for bots, {100 * found / agents:6.2f} %")


if __name__ == "__main__":
    main()
