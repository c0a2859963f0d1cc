"""Apertium: rule-based translation, offline, from the distribution's own packages.

Segments go through the pair's pipeline divided by NUL bytes. The statistical tagger is the one part whose choice
depends on what it read before (an unseen ambiguity class changes its tables), so it alone is started anew for each
segment: a translation then never depends on its neighbours, at under 4 ms a segment.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from sdrrl_factory.engine import threads
from sdrrl_factory.errors import UserError
from sdrrl_factory.files import sha256, sha256_file
from sdrrl_factory.languages import LANGUAGES

_SPECIAL = re.compile(r"([\[\]{}^$/\\@<>~])")
_ESCAPED = re.compile(r"\\(.)")
_GAP = re.compile(r"\s+([.,;:?!])(?=\s|$)")
_END = ".[][\n]"  # what Apertium's own deformatter puts behind a text: a sentence end and an empty blank


class Apertium:
    """Args: pairs: the directions (ISO 639-3, ISO 639-3) that will be asked for.

    Raises: UserError without a key: Apertium or a pair is not installed, or ended with an error.
    """

    name = "apertium 3"

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        program = shutil.which("apertium")
        if program is None:
            raise UserError("apertium is not installed", "run `apt-get install apertium apertium-eng-spa`")
        modes = Path(program).parent.parent / "share/apertium/modes"
        installed = {path.stem: path for path in sorted(modes.glob("*.mode"))}
        self._modes, self._versions = {}, {}
        for source, target in pairs:
            names = _names(source, target)
            mode = next((installed[name] for name in names if name in installed), None)
            if mode is None:
                raise UserError(
                    f"Apertium has no pair {names[0]} here (installed: {', '.join(installed) or 'none'})",
                    _next_step(source, target, set(installed)),
                )
            self._modes[source, target] = _stages(mode)
            self._versions[source, target] = _version(mode)

    def signature(self, source: str, target: str) -> str:
        """With the version of the pair: another one's dictionaries and rules translate otherwise."""
        return f"{self.name} {self._versions[source, target]}"

    def translate(self, segments: Sequence[str], source: str, target: str) -> list[str]:
        before, tagger, after = self._modes[source, target]
        stream = [_SPECIAL.sub(_escaped, " ".join(s.replace("\0", " ").split())) + _END for s in segments]
        stream = _through(before, stream)
        if tagger:
            with ThreadPoolExecutor(threads()) as pool:
                stream = list(pool.map(partial(_run, tagger), stream))
            stream = _through(after, stream)
        return [_plain(text) for text in stream]


def _next_step(source: str, target: str, installed: set[str]) -> str:
    """What to do about a pair that is not installed: go through another language, where both halves are."""
    for pivot in LANGUAGES:
        there = installed.intersection(_names(source, pivot))
        onward = installed.intersection(_names(pivot, target))
        if there and onward:
            return f"set translator.via: [{pivot}], as {min(there)} and {min(onward)} are installed"
    return "see `apt-cache search apertium-` for a package with it, or choose another target_lang"


def _names(source: str, target: str) -> list[str]:
    """What a pair may be called: packages take one code or another of a language."""
    return [f"{a}-{b}" for a in _codes(source) for b in _codes(target)]


def _escaped(match: re.Match) -> str:
    return f"[{match[1]}]" if match[1] == "~" else f"\\{match[1]}"


def _codes(code: str) -> list[str]:
    row = LANGUAGES[code]
    return [row.apertium, row.iso1]


def _version(mode: Path) -> str:
    """A hash of the pipeline of a .mode file and of the dictionaries and rules it names: 12 hexadecimal digits."""
    text = mode.read_text()
    files = [word for word in shlex.split(text) if word.startswith("/") and Path(word).is_file()]
    return sha256("\n".join([text, *map(sha256_file, files)]))[:12]


def _stages(mode: Path) -> tuple[str, list[str], str]:
    """The pipeline of a .mode file: before the tagger, the tagger, after it; every part flushing at NUL."""
    # $1 and $2 are the shell's places for the generator's and the tagger's options: unknown words unmarked, none.
    parts = [part.strip() for part in mode.read_text().replace("$1", "-n").replace("$2", "").strip().split("|")]
    at = next((i for i, part in enumerate(parts) if part.startswith("apertium-tagger")), None)
    flushing = [part.replace(" ", " -z ", 1) if " " in part else f"{part} -z" for part in parts]
    if at is None:
        return " | ".join(flushing), [], ""
    return " | ".join(flushing[:at]), shlex.split(parts[at]), " | ".join(flushing[at + 1 :])


def _through(pipeline: str, texts: list[str]) -> list[str]:
    out = _run(["bash", "-o", "pipefail", "-c", pipeline], "".join(f"{t}\0" for t in texts)).split("\0")[: len(texts)]
    return out + [""] * (len(texts) - len(out))


def _run(command: list[str], text: str) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, input=text.encode(), capture_output=True, env=environment)
    if done.returncode:
        message = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        what = f"apertium ended with status {done.returncode} ({' '.join(message)})"
        raise UserError(what, "reinstall its pair")
    return done.stdout.decode("utf-8", "replace")


def _plain(text: str) -> str:
    """Without the end mark and escapes, and without the blanks that words leave behind which Apertium dropped."""
    plain = " ".join(_ESCAPED.sub(r"\1", text.removesuffix(_END).replace("[~]", "~")).split())
    return _GAP.sub(r"\1", plain)
