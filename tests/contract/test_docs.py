"""Types every command of README, tutorial and api.md at a fresh member and compares the answers.

A page's ```console blocks are read as a transcript: lines that begin with "$ " are typed, in order, into one bash; what
follows is what must be printed. Times, ids, tokens, addresses and what is left of a TTL differ from day to day and are replaced on
both sides before comparing; nothing is skipped.
"""

import os
import re
import subprocess

import pytest

from harness import new_server
from harness.server import SOURCE

PAGES = ["README.md", "docs/tutorial.md", "docs/api.md"]
FLAGS = {"docs/api.md": ["--enable-discovery"]}

NORMAL = [
    (re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)'), "<time>"),
    (re.compile(r'"ttl":\d+'), '"ttl":<left>'),
    (re.compile(r'"uptime":"[^"]+"'), '"uptime":"<duration>"'),
    (re.compile(r'"(id|leader)":"[0-9a-f]+"'), r'"\1":"<id>"'),
    (re.compile(r'127\.0\.0\.1:\d+'), "<address>"),
    (re.compile(r'\b[0-9a-f]{32}\b'), "<token>"),
]


# Where a page lets a moment pass for a watch to begin: however long that takes.
UNTIL_WATCHED = "until curl -s http://127.0.0.1:%d/v2/stats/store | grep -q '\"watchers\":[1-9]'; do sleep 0.05; done"


def normal(text):
    for pattern, replacement in NORMAL:
        text = pattern.sub(replacement, text)
    return text.rstrip("\n")


def blocks(page):
    with open(os.path.join(SOURCE, page), encoding="utf-8") as source:
        for block in re.findall(r"^```console\n(.*?)^```$", source.read(), re.S | re.M):
            yield block


def steps(block):
    """[(commands typed at once, output expected)]: commands without an answer of their own belong to the next."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    if any(" & " in command for command, _ in found):
        # A background job answers when it likes: the block is one script, its output one text.
        return [("\n".join(command for command, _ in found), [line for _, lines in found for line in lines])]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_prints_what_the_page_says(page):
    typed = 0
    with new_server(FLAGS.get(page, ())) as server:
        server.start()
        for block in blocks(page):
            for command, expected in steps(block):
                command = command.replace("127.0.0.1:2379", "127.0.0.1:%d" % server.port)
                command = command.replace("sleep 0.3", UNTIL_WATCHED % server.port)
                done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True,
                                      text=True, timeout=80, check=False)
                assert normal(done.stdout) == normal("\n".join(expected)), command
                typed += 1
    assert typed >= 6, "no commands found on the page"
