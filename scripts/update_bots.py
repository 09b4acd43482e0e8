#!/usr/bin/env python3
"""Refreshes the list of known bots from the public package `crawler-user-agents` (MIT).

    scripts/update_bots.py            # the newest version that pip finds
    scripts/update_bots.py 1.67.0     # this one

Writes src/middleware/bots/known.txt, a line a bot: its name, its categories, the text that gives it away. The source has
regular expressions; of each the longest plain text is taken, `^` and `$` stay. What the result misses of the user agents
that the source gives as instances is told; the generic signs in src/middleware/bots/signs.rs find most of those.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent.parent / "src/middleware/bots"

# Names that stand in user agents of browsers, apps and devices as well: a build of Android, a messenger, phones, a browser.
AMBIGUOUS = {"AP3A.240617.008", "Viber", "Fluid", "Sonic", "Expanse", "Fever", "Butterfly", "Speedy", "Sogou", "Instagram"}


def package(version):
    """The list itself, the text of its licence, and its version."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = "crawler-user-agents" + (f"=={version}" if version else "")
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, wanted], check=True)
        wheel = next(pathlib.Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            read = lambda ending: archive.read(next(n for n in names if n.endswith(ending))).decode()
            return json.loads(read("crawler-user-agents.json")), read("LICENSE"), wheel.name.split("-")[1]


def pieces(pattern):
    """The plain texts of a regular expression, which may stand at its start or end; alternatives one by one."""
    for alternative in alternatives(pattern):
        head, tail = alternative.startswith("^"), alternative.endswith("$")
        text, plain = "", []
        for token in re.findall(r"\\.|\[[^]]*\][*+?]?|\([^)]*\)[*+?]?|.[*+?]|[\s\S]", alternative.strip("^$")):
            letter = literal(token)
            if letter is None:
                plain.append(text)
                text = ""
            else:
                text += letter
        plain.append(text)
        longest = max(plain, key=len)
        whole = len([p for p in plain if p]) == 1
        yield ("^" if head and plain[0] == longest else "") + longest + ("$" if tail and whole else "")


def alternatives(pattern):
    depth, parts = 0, [""]
    for letter in pattern:
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    group = re.search(r"(?<!\\)\(([^()\\^$]+\|[^()\\^$]+)\)", pattern)
    if len(parts) == 1 and group:
        return [pattern[: group.start()] + part + pattern[group.end() :] for part in group.group(1).split("|")]
    return parts


def literal(token):
    """The letter that a token stands for, whatever its case; none for what is no letter."""
    if token.startswith("\\"):
        return token[1] if not token[1].isalnum() else None
    letters = set(token[1:-1].lower()) if token.startswith("[") and token.endswith("]") else {token}
    return letters.pop() if len(letters) == 1 and all(len(letter) == 1 for letter in letters) else None


def main():
    source, licence, version = package(sys.argv[1] if len(sys.argv) > 1 else "")
    lines = {}
    for bot in source:
        for text in pieces(bot["pattern"].replace("\\/", "/")):
            name = re.sub(r"^https?://", "", text.strip("^$")).split("(")[0].strip(" /;:+)-_.") or text
            if name in AMBIGUOUS or len(name) < 3 and not text.startswith("^") and "/" not in text:
                continue
            lines.setdefault(text.lower(), (name, ",".join(sorted(bot.get("tags", []))), text))
    out = [
        f"# Known bots: name, categories, text in the user agent (any case; ^ at the start, $ at the end). {len(lines)} lines.",
        f"# From crawler-user-agents {version}, MIT licence (see known.LICENSE). Made by scripts/update_bots.py; do not edit.",
    ]
    out += ["\t".join(line) for _, line in sorted(lines.items())]
    (HERE / "known.txt").write_text("\n".join(out) + "\n")
    (HERE / "known.LICENSE").write_text(licence)
    missed = [ua for bot in source for ua in bot["instances"] if not found(ua, lines)]
    print(f"crawler-user-agents {version}: {len(lines)} texts, {len(missed)} of its own instances without a name")
    print("\n".join(missed[:20]))


def found(agent, lines):
    agent = agent.lower()
    for text in lines:
        at = agent.find(text.strip("^$"))
        if at >= 0 and (not text.startswith("^") or at == 0):
            return True
    return False


if __name__ == "__main__":
    main()
