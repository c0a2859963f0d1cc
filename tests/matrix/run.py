"""The plugin and the road with other versions of the libraries, each cell in an environment of its own.

    python tests/matrix/run.py [CELL ...]     (default: all)

A cell is a file beside this one: the pins in which it differs from constraints.txt. Its environment is made, or
completed, in .matrix/CELL; its tests' output is in .matrix/CELL.log. Prints the table of docs/training.md.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MATRIX = ROOT / ".matrix"
UV = Path(sys.executable).with_name("uv")
SHOWN = ["llamafactory", "transformers", "numpy", "deepspeed", "peft", "huggingface-hub"]
# The oracle of equation 6 in one process and in two; prepare, train, export, eval and compare; and what reads models.
TESTS = [
    "tests/training/test_equation6.py::test_one_step_is_equation_6",
    "tests/training/test_equation6.py::test_one_step_of_two_processes_as_a_user_starts_them",
    "tests/training/test_equation6.py::test_one_step_of_two_processes",
    "tests/training/test_equation6.py::test_one_step_of_two_processes_in_other_ways",
    "tests/training/test_equation6.py::test_every_step_of_an_epoch_the_last_shorter_one_too",
    "tests/training/test_equation6.py::test_evaluation_sets_are_weighted_like_equation_6",
    "tests/training/test_equation6.py::test_without_the_weights_it_is_not",
    "tests/end_to_end/test_road.py::test_prepare_registers_six_subsets",
    "tests/end_to_end/test_road.py::test_the_road",
    "tests/test_decoding.py",
    "tests/test_lm.py",
    "tests/transfer/test_nllb.py",
]
# Where unbabel-comet cannot be in the cell's environment, and is in its own.
COMET_TESTS = ["tests/test_comet.py", "tests/eval/test_comet.py", "tests/transfer/test_quality.py"]
COMET_CELLS = ["tf56-np2"]
# LLaMA-Factory 0.9.4 stops at neat_packing with transformers from 4.53 on.
LEFT_OUT = {"lf094": "neat_packing"}
# LLaMA-Factory's requirements stop at DeepSpeed 0.18.4.
ENVIRONMENT = {"tf56-np2-ds019": {"DISABLE_VERSION_CHECK": "1"}}


def main(cells: list[str]) -> int:
    known = sorted(path.stem for path in HERE.glob("*.txt"))
    unknown = [cell for cell in cells if cell not in known]
    if unknown:
        print(f"no cell {unknown[0]}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    print("| cell | " + " | ".join(SHOWN) + " | tests |\n" + "| --- " * (len(SHOWN) + 2) + "|", flush=True)
    failed = False
    for cell in cells or known:
        start = time.monotonic()
        try:
            python = make(cell)
            passed, result = test(cell, python)
            versions = installed(python)
        except subprocess.CalledProcessError as err:
            passed, result, versions = False, f"not installed (status {err.returncode})", {}
        shown = " | ".join(versions.get(name, "?") for name in SHOWN)
        print(f"| {cell} | {shown} | {result}, {time.monotonic() - start:.0f} s |", flush=True)
        failed |= not passed
    return int(failed)


def make(cell: str) -> Path:
    """Its environment, with exactly the pinned versions; returns its Python."""
    folder = MATRIX / cell
    own = [line for line in (HERE / f"{cell}.txt").read_text().splitlines() if "==" in line]
    names = {line.split("==")[0] for line in own}
    base = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.split("==")[0] not in names]
    MATRIX.mkdir(exist_ok=True)
    pins = MATRIX / f"{cell}.constraints.txt"
    pins.write_text("\n".join(base + own) + "\n")
    python = folder / "bin" / "python"
    if not python.exists():
        call([UV, "venv", "-q", "-p", sys.executable, folder])
    call([UV, "pip", "install", "-q", "-p", python, "-c", pins, "-e", f"{ROOT}[embedded,dev,ctranslate2]"])
    if cell in COMET_CELLS:
        call([folder / "bin" / "sdrrl", "install", "comet"], SDRRL_COMET_ENV=str(MATRIX / "comet"))
    return python


def test(cell: str, python: Path) -> tuple[bool, str]:
    """Whether its tests passed, and pytest's own count of them."""
    environment = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", **ENVIRONMENT.get(cell, {})}
    # What DeepSpeed compiles names its environment: in one folder, two environments undo each other's work.
    environment["TORCH_EXTENSIONS_DIR"] = str(MATRIX / cell / "torch_extensions")
    tests = TESTS
    if cell in COMET_CELLS:
        environment["SDRRL_COMET_ENV"] = str(MATRIX / "comet")
        tests = TESTS + COMET_TESTS
    command = [python, "-m", "pytest", "-q", "-o", f"cache_dir={MATRIX / cell / 'cache'}", *tests]
    command += ["-k", f"not {LEFT_OUT[cell]}"] if cell in LEFT_OUT else []
    with (MATRIX / f"{cell}.log").open("w") as log:
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log)
    last = (MATRIX / f"{cell}.log").read_text().splitlines()[-1].strip("= ")
    # A test that is skipped here would say nothing of the cell.
    return done.returncode == 0 and "skipped" not in last, last.split(" in ")[0]


def installed(python: Path) -> dict[str, str]:
    listed = subprocess.run(
        [UV, "pip", "list", "-q", "--format", "json", "-p", python], capture_output=True, check=True
    )
    return {package["name"]: package["version"] for package in json.loads(listed.stdout)}


def call(command: list, **environment: str) -> None:
    # The table stands alone on stdout.
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | environment, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
