"""Where the kernels are, and what the Rust sources say of how they are compiled: .ci compiles as they do."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"


class Failure(Exception):
    """What is wrong with the kernels, one line each."""


def run(*command):
    """What the command prints."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))}:\n{done.stdout}")
    return done.stdout


def rust_array(name, *places):
    """The words of the constant array of this name, from the one file among `places`, or below them, that has it."""
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.rglob("*.rs")))]
    pattern = re.compile(rf"^const {name}: \[[^=]*\] = \[(.*?)\];", re.M | re.S)
    found = [match[1] for match in map(pattern.search, (file.read_text() for file in files)) if match]
    if len(found) != 1:
        where = ", ".join(str(place.relative_to(ROOT)) for place in places)
        raise Failure(f"{len(found)} constant arrays are called {name} in {where}; tell .ci/ where it went")
    return [word.strip(' "\n') for word in found[0].split(",") if word.strip()]
