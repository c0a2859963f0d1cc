"""The engine: the same work by this process and by the workers of a Ray cluster, with workers and nodes that die.

One cluster of two nodes (real raylets, one CPU each) serves the whole file: it takes half a minute to start.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import ray
import yaml

from sdrrl_eval.measure import runner
from sdrrl_eval.measure.recipe import EvalConfig
from sdrrl_factory import engine
from sdrrl_factory.engine import EngineKeys, Local, Need, _Actors, connect
from sdrrl_factory.errors import UserError
from sdrrl_factory.memory import Memory
from sdrrl_factory.recipe import load
from sdrrl_factory.transfer import run as prepare
from sdrrl_factory.transfer.recipe import CodeSwitch, Generator, Parallel, PrepareConfig, Translator
from tests.conftest import BIN, ROOT
from tests.golden.record import WORDS
from tests.ray_cluster import SMALL, two_nodes

pytestmark = pytest.mark.slow
needs_apertium = pytest.mark.skipif(
    shutil.which("apertium") is None, reason="needs Apertium: apt-get install apertium apertium-eng-spa"
)


@pytest.fixture(scope="module")
def cluster():
    # The workers find this file's classes by their value: a node has the package, not its tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with two_nodes() as nodes:
        yield nodes


def keys(cluster, **more) -> EngineKeys:
    return EngineKeys(backend="ray", address=cluster.address, **more)


@contextmanager
def opened(progress):
    """A tool: the process it was opened in."""
    yield os.getpid()


@dataclass(frozen=True)
class Squares:
    """Squares numbers. A number of `fatal` kills its worker each time, one of `once` the first time only.

    workers: waits until so many are at work.
    """

    numbers: tuple[int, ...]
    folder: Path
    fatal: tuple[int, ...] = ()
    once: tuple[int, ...] = ()
    workers: int = 1
    reason: str = ""

    def work(self, tool):
        assert tool == os.getpid()
        (self.folder / f"worker-{tool}").touch()
        while len(list(self.folder.glob("worker-*"))) < self.workers:
            time.sleep(0.1)
        if self.reason:
            return [(self.numbers[0], self.reason, tool)]
        out = []
        for number in self.numbers:
            if number in self.fatal or (number in self.once and not list(self.folder.glob(f"{number}-*"))):
                (self.folder / f"{number}-{time.time_ns()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            out.append((number, number * number, tool))
        return out

    def halves(self):
        middle = len(self.numbers) // 2
        parts = (self.numbers[:middle], self.numbers[middle:])
        return [replace(self, numbers=part) for part in parts] if middle else []

    def joined(self, results):
        return [row for result in results for row in result]

    def rejected(self, reason):
        return replace(self, reason=reason)


def run_items(run, items, need=Need()):  # noqa: B008
    with run.pool(opened, need, lambda rows: None) as pool:
        results = dict(pool.map(items))
    return [results[i] for i in range(len(items))]


def values(results):
    return [[(number, value) for number, value, _ in result] for result in results]


def pids(results):
    return {pid for result in results for _, _, pid in result}


def is_there(pid, seconds=10):
    """Whether the process is still there after so long."""
    end = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    return Path(f"/proc/{pid}").exists()


def test_workers_do_what_this_process_does(cluster, tmp_path):
    items = [Squares((i, i + 100), tmp_path, workers=2) for i in range(12)]
    with connect(keys(cluster), {"work_dir": str(tmp_path)}, tmp_path / "ray") as run:
        results = run_items(run, items)
        assert values(results) == [[(i, i * i), (i + 100, (i + 100) ** 2)] for i in range(12)]
        assert values(results) == values(run_items(Local(), items))
        assert len(pids(results)) == 2 and os.getpid() not in pids(results)
        # The next stage has the same workers, or one of them if it makes no use of more.
        assert pids(run_items(run, items)) <= pids(results)
        assert len(pids(run_items(run, items, Need(workers=1)))) == 1
        # A mistake of the user's travels as it is.
        with pytest.raises(UserError, match="^generator.model: broken; mend it$"):
            run_items(run, [Raises()])
    assert not any(map(is_there, pids(results)))


@dataclass(frozen=True)
class Raises:
    def work(self, tool):
        raise UserError("broken", "mend it", key="generator.model")


def test_a_record_that_kills_its_worker_is_rejected_and_no_other(cluster, tmp_path):
    (tmp_path / "marks").mkdir()
    items = [Squares(tuple(range(i, i + 8)), tmp_path / "marks", fatal=(13,), once=(2, 20)) for i in range(0, 32, 8)]
    with connect(keys(cluster), {}, tmp_path / "ray") as run:
        results = values(run_items(run, items))
    expected = [[(n, n * n) for n in range(i, i + 8)] for i in range(0, 32, 8)]
    expected[1][5] = (13, "its worker died 3 times")
    assert results == expected
    # Twice each with seven neighbours, three and one, then alone.
    assert len(list((tmp_path / "marks").glob("13-*"))) == 2 + 2 + 2 + 3
    assert [len(list((tmp_path / "marks").glob(f"{n}-*"))) for n in (2, 20)] == [1, 1]


def test_memory_that_ran_out_halves_all_that_follows():
    """Without Ray: how its death is told is Ray's, what is done about it is decided here."""
    from sdrrl_factory.engine import _Job

    pool = _Actors(None, None, 1)
    item = Squares((1, 2, 3, 4), Path())
    halves = pool._again(_Job(item, 0), out_of_memory=True)
    assert [job.item.numbers for job in halves] == [(1, 2), (3, 4)] and pool._depth == 1
    (left, right) = pool._again(halves[0], out_of_memory=True)
    assert [left.item.numbers, right.item.numbers] == [(1,), (2,)] and pool._depth == 2
    for _ in range(3):
        (left,) = pool._again(left, out_of_memory=True)
    assert left.item.reason == "memory ran out 3 times" and pool._depth == 2


@dataclass(frozen=True)
class Remembers:
    """What a worker reads of a memory, and then writes there."""

    path: Path
    number: int

    def work(self, tool):
        with Memory(self.path) as memory:
            before = memory.get("kind", ["known", f"{self.number}"])
            memory.put("kind", {f"{self.number}": [self.number, tool]})
            memory.note("kind", {f"{self.number}": "no"})
            return before, memory.noted("kind", [f"{self.number}", "other"]), memory.knows("other kind")


def test_workers_share_a_memory_that_one_process_has_open(cluster, tmp_path):
    path = tmp_path / "memory.sqlite"
    with Memory(path) as memory:
        memory.put("kind", {"known": "as \u00e9"})
    with connect(keys(cluster), {}, tmp_path / "ray") as run:
        results = run_items(run, [Remembers(path, n) for n in range(6)])
        holders = {pid for pid in os.listdir("/proc") if pid.isdigit() and holds(pid, path)}
    assert results == [({"known": "as \u00e9"}, {f"{n}": "no"}, False) for n in range(6)]
    assert len(holders) == 1
    with Memory(path) as memory:
        stored = memory.get("kind", map(str, range(6)))
        assert [stored[str(n)][0] for n in range(6)] == list(range(6)) and memory.noted("kind", "0") == {}
    # By the process that has the memories, not by the workers.
    assert holders.isdisjoint(str(pid) for _, pid in stored.values())


def holds(pid, path):
    try:
        return any(os.readlink(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


# --- mistakes: one line each, before any work


def refused(engine_keys: EngineKeys, folder: Path, **shared: str) -> str:
    with pytest.raises(UserError) as caught, connect(engine_keys, shared, folder / "ray"):
        pytest.fail("it was connected")
    return str(caught.value)


def test_mistakes_that_need_no_cluster(tmp_path, monkeypatch):
    line = refused(EngineKeys(backend="ray", address="127.0.0.1:1"), tmp_path)
    assert line.startswith("engine.address: no Ray cluster at 127.0.0.1:1 (Connection refused); start one there with")
    for address in ("ray://head:10001", "head", "head:port"):
        assert "is no host:port; name the head node's" in refused(EngineKeys(backend="ray", address=address), tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refused(EngineKeys(backend="ray"), tmp_path)
    assert line.startswith("engine.backend: ray is not installed; run `pip install 'sdrrl-factory[ray]'`")


def test_more_than_the_cluster_has(cluster, tmp_path):
    line = refused(keys(cluster, gpus=1), tmp_path)
    assert line.startswith("engine.gpus: a worker with 1 GPUs, and no node has so many; the cluster has ")
    assert "and 0 GPUs on " in line and line.endswith("; lower engine.gpus, or add such a node")
    assert refused(keys(cluster, cpus=8), tmp_path).startswith("engine.cpus: a worker with 8 CPUs, and no node has so")
    assert refused(keys(cluster, workers=9), tmp_path).startswith("engine.workers: 9 workers with 1 CPUs each, and the")


def test_a_folder_that_the_nodes_do_not_see(cluster, tmp_path):
    opened = os.open(tmp_path, os.O_RDONLY)
    try:
        # One of this process alone, as a disk of one machine is.
        line = refused(keys(cluster), tmp_path, work_dir=f"/dev/fd/{opened}/work", dataset_dir=str(tmp_path))
    finally:
        os.close(opened)
    assert line.startswith("work_dir: node ") and f"does not see /dev/fd/{opened}/work; use a file system that" in line
    # What was written to find out is gone.
    assert not list(tmp_path.glob("**/.engine-*"))


@contextmanager
def node_that_begins_with(cluster, folder: Path, code: str, monkeypatch):
    """A node whose Python runs this first."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    with monkeypatch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder))
        node = cluster.add_node(num_cpus=1, object_store_memory=SMALL)
    try:
        yield
    finally:
        cluster.remove_node(node)


@pytest.mark.exhaustive
def test_a_node_with_another_version_and_one_without_the_package(cluster, tmp_path, monkeypatch):
    other = "import sdrrl_factory\nsdrrl_factory.__version__ = '0.0.1'\n"
    with node_that_begins_with(cluster, tmp_path / "other", other, monkeypatch):
        line = refused(keys(cluster), tmp_path)
    assert line.startswith("engine.address: node ")
    assert f"has sdrrl_factory 0.0.1 on Python 3.{sys.version_info[1]}; install the same on every node" in line
    none = """
import sys
for name in [name for name in sys.modules if name.split(".")[0] == "sdrrl_factory"]:
    del sys.modules[name]
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "sdrrl_factory":
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Nowhere())
"""
    with node_that_begins_with(cluster, tmp_path / "none", none, monkeypatch):
        line = refused(keys(cluster), tmp_path)
    assert line.startswith("engine.address: node ") and " has no sdrrl_factory; install sdrrl-factory " in line


@dataclass(frozen=True)
class Where:
    """What a node says of itself."""

    node: str


def where():
    return Where(ray.get_runtime_context().get_node_id())


def test_nodes_with_different_models(cluster, tmp_path):
    with connect(keys(cluster), {}, tmp_path / "ray") as run:
        assert run.agreed(os.getcwd) == os.getcwd()
        with pytest.raises(UserError, match="^engine.address: nodes .* have different models, dict.*alike: node '"):
            run.agreed(where)


# --- prepare and eval on the cluster


def recipe(folder: Path, tiny: Path, rows: int, shard_size: int) -> PrepareConfig:
    """All systems into Spanish and, through it, Portuguese, written below `folder`."""
    folder.mkdir(exist_ok=True)
    for language, words in WORDS.items():
        lines = [f"{word}\t{translations}\n" for word, translations in words.items()]
        (folder / f"eng-{language}.tsv").write_text("".join(lines), encoding="utf-8")
    # The card names the recipe's paths: those that differ between runs are the two below.
    return PrepareConfig(
        instructions=str(ROOT / "data/seeds/english_instructions.jsonl"),
        target_lang=["spa", "por"],
        max_samples=rows,
        systems=["sdrrl", "sft", "tsft", "cit", "xcot"],
        generator=Generator(model=str(tiny), max_new_tokens=8, longest_answer=8, batch_size=4),
        translator=Translator(via=["spa"]),
        code_switch=CodeSwitch(dictionary=str(folder / "eng-{target}.tsv")),
        parallel=Parallel(size=10),
        dataset_dir=str(folder / "data"),
        work_dir=str(folder / "work"),
        shard_size=shard_size,
    )


def written(config: PrepareConfig) -> dict[str, bytes]:
    """File -> bytes of the data sets, the registry and the cards, wherever they lie."""
    folder = Path(config.dataset_dir)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    # The card escapes what is Markdown in a path.
    parent = str(folder.parent).encode()
    return {str(p.relative_to(folder)): p.read_bytes().replace(rb"\_", b"_").replace(parent, b"") for p in files}


@pytest.fixture(scope="module")
def local_files(tiny, tmp_path_factory):
    """What `prepare` of so many rows writes in this process."""
    made = {}

    def files(rows: int, shard_size: int = 7) -> dict[str, bytes]:
        if rows not in made:
            config = recipe(tmp_path_factory.mktemp("local") / "run", tiny, rows, shard_size)
            prepare.prepare(config)
            made[rows] = written(config)
        return made[rows]

    return files


@needs_apertium
def test_prepare_writes_the_same_bytes(cluster, tiny, tmp_path, local_files):
    config = recipe(tmp_path / "run", tiny, rows=14, shard_size=4)
    prepare.prepare(config.model_copy(update={"engine": keys(cluster)}))
    files = written(config)
    assert len(files) > 20 and files == local_files(14)
    # No shard is left half done, and what the workers said is in the run's folder.
    assert not [path for path in Path(config.work_dir).rglob("*") if ".questions" in str(path)]
    assert list(Path(config.work_dir, "sdrrl", "ray").glob("worker-*.log"))
    # Local goes on with the cluster's shards: there is nothing left to do.
    prepare.prepare(config)
    assert written(config) == files


def test_eval_writes_the_same_bytes(cluster, tiny, tmp_path, monkeypatch):
    # The recipe's files lie below the project.
    monkeypatch.chdir(ROOT)
    files, scores = {}, {}
    for name, engine_keys in {"local": "{}", "ray": f"{{backend: ray, address: '{cluster.address}'}}"}.items():
        overrides = [f"model={tiny}", f"output_dir={tmp_path / name / 'out'}", f"engine={engine_keys}"]
        overrides += ["max_samples=6", "draw=first", "max_new_tokens=12", "batch_size=4"]
        recipe_ = load(EvalConfig, str(ROOT / "yaml_recipes/eval/demo_spa.yaml"), overrides)
        results = runner.run(recipe_.config, "")
        scores[name] = results["scores"]
        out = tmp_path / name / "out"
        files[name] = {str(path.relative_to(out)): path.read_bytes() for path in out.glob("predictions/*")}
    assert len(files["local"]) > 3 and files["ray"] == files["local"]
    assert scores["ray"] == scores["local"]


@needs_apertium
@pytest.mark.exhaustive
@pytest.mark.parametrize(("workers", "shard_size"), [(1, 7), (2, 200), (3, 7), (None, 200)])
def test_no_number_of_workers_and_no_order_of_nodes_changes_a_byte(
    cluster, tiny, tmp_path, local_files, workers, shard_size, monkeypatch
):
    # The nodes in another order, and the items in another: results come as they come.
    rng, in_order, nodes = random.Random(workers), _Actors.map, engine._nodes
    monkeypatch.setattr(engine, "_nodes", lambda: rng.sample(nodes(), len(nodes())))

    def shuffled(pool, items):
        order = rng.sample(range(len(items)), len(items))
        return ((order[i], result) for i, result in in_order(pool, [items[i] for i in order]))

    monkeypatch.setattr(_Actors, "map", shuffled)
    if workers == 3:
        cluster.add_node(num_cpus=1, object_store_memory=SMALL)
    config = recipe(tmp_path / "run", tiny, rows=227, shard_size=shard_size)
    prepare.prepare(config.model_copy(update={"engine": keys(cluster, workers=workers)}))
    assert written(config) == local_files(227, 20)


def workers_of(cluster) -> list[int]:
    """The processes of all actors and tasks on the cluster's nodes, the one with the memories too."""
    below = [child for node in psutil.Process().children() for child in node.children(recursive=True)]
    names = ("ray::_Worker", "ray::_Memories")
    return [child.pid for child in below if " ".join(child.cmdline()[:1]).startswith(names)]


@contextmanager
def killing(cluster, kills: int, seconds: float, seed: int):
    """Kills a random worker every so often, from a thread; the value is the list of those killed."""
    rng, killed, ended = random.Random(seed), [], threading.Event()

    def run():
        while len(killed) < kills and not ended.wait(rng.uniform(0, 2 * seconds)):
            with suppress(psutil.Error, ProcessLookupError, IndexError):
                pid = rng.choice(workers_of(cluster))
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


@needs_apertium
@pytest.mark.exhaustive
def test_twenty_killed_workers_and_a_lost_node_change_no_byte(cluster, tiny, tmp_path, local_files):
    lost = cluster.add_node(num_cpus=1, object_store_memory=SMALL)
    config = recipe(tmp_path / "run", tiny, rows=227, shard_size=7)
    with killing(cluster, 20, 2.0, seed=1) as killed:
        leaving = threading.Timer(30, cluster.remove_node, args=(lost, False))
        leaving.start()
        prepare.prepare(config.model_copy(update={"engine": keys(cluster)}))
        leaving.join()
    assert len(killed) == 20
    assert written(config) == local_files(227, 20)


@needs_apertium
@pytest.mark.exhaustive
def test_a_killed_command_goes_on(cluster, tiny, tmp_path, local_files):
    config = recipe(tmp_path / "run", tiny, rows=227, shard_size=7)
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True), encoding="utf-8")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = ["sdrrl", "prepare", path, "engine.backend=ray", f"engine.address={cluster.address}"]
    for shards in (3, 20):
        running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=ROOT)
        while len(list(Path(config.work_dir).rglob("translate/*.jsonl"))) < shards and running.poll() is None:
            time.sleep(0.2)
        running.kill()
        assert running.wait() == -signal.SIGKILL
        # The workers end with it.
        assert not any(map(is_there, workers_of(cluster)))
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, cwd=ROOT, check=True)
    assert written(config) == local_files(227, 20)
