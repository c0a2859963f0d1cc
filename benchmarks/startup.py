"""What the package costs everyone: `sdrrl --help`, and the .pth in every `python -c pass`.

The .pth's cost is a difference of two medians over interleaved runs (A B A B) of the same interpreter start, with and
without its line. What a start has loaded anyway by then (`os`) is loaded in both.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def seconds(command: list[str], **environment) -> float:
    start = time.perf_counter()
    subprocess.run(command, env=os.environ | environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    line = next(
        Path(p) / "sdrrl_factory_autoload.pth" for p in sys.path if (Path(p) / "sdrrl_factory_autoload.pth").exists()
    )
    code = line.read_text()
    # -S: without site-packages' own .pth files, this line among them.
    bare = [sys.executable, "-S", "-c", "import os, sys; sys.path[:0] = ['.']"]
    with_line = [sys.executable, "-S", "-c", f"import os, sys; sys.path[:0] = ['.']\n{code}"]
    a, b = [], []
    for _ in range(100):
        a.append(seconds(bare))
        b.append(seconds(with_line))
    added = (statistics.median(b) - statistics.median(a)) * 1000
    print(f".pth: {added:.2f} ms added to {statistics.median(a) * 1000:.1f} ms (at most 1 ms)")
    help_ = statistics.median(seconds([str(BIN / "sdrrl"), "--help"]) for _ in range(15))
    print(f"sdrrl --help: {help_:.3f} s (at most 0.5 s)")


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    main()
