"""Who does the work of a recipe: this process, or the workers of a Ray cluster. The seam is the item: paths travel.

    with connect(config.engine, shared={"work_dir": folder}, logs=folder / "ray") as engine:
        with engine.pool(stage.open, stage.need(), progress) as pool:
            for i, result in pool.map(items):       # as they come; `i` is the item's index

An item is little (the path of a shard, the path of what it becomes) and knows what to do with the tool that the pool's
opener gives. `Local` takes one item after the other. `Cluster` has a pool of Ray actors: each opens its tool once,
takes one item at a time, and is replaced when it dies; what it had in work is done again.

Why actors and not Ray Data: its retries count exceptions of a batch, not deaths of the worker that had it, so a record
that kills its worker would be tried for ever; here an item is halved down to that record.
"""

import gc
import logging
import os
import shutil
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field

from sdrrl_factory import __version__
from sdrrl_factory.errors import UserError, under
from sdrrl_factory.log import count, say
from sdrrl_factory.memory import Memory
from sdrrl_factory.recipe import Group

T = TypeVar("T")
# Gives the tool that items are worked on with, for as long as the `with` lasts; is told of records done in between.
Opener = Callable[[Callable[[int], None]], AbstractContextManager[Any]]

_DEATHS = 3  # of its worker, after which a record is rejected
_STARTS = 50  # workers that die in a row before they are ready, after which the run stops
_CONNECT = 5.0  # seconds for a cluster's address to answer
_RETRIES = 10  # of a look at a node
_ANSWER = 600.0  # seconds for it: a worker starts, and reads a model's files
_STALLED = 30.0  # seconds without any worker, after which it is said
# What a worker is given of this process's environment: how libraries load, and the keys of servers.
_ENVIRONMENT = ("HF_", "TRANSFORMERS_", "TOKENIZERS_", "LLAMAFACTORY_", "SDRRL_")


class EngineKeys(Group):
    """Who does the work."""

    backend: Literal["local", "ray"] = "local"
    """local: this process; ray: the workers of a Ray cluster, or all GPUs of this machine."""
    address: str = "auto"
    """Of the cluster, host:port. auto: the one that RAY_ADDRESS names or that runs here, else one that is started on
    this machine for the run."""
    workers: int | None = Field(default=None, ge=1)
    """At most so many at a time; null: as many as the cluster has room for."""
    gpus: int | None = Field(default=None, ge=0)
    """GPUs of a worker that runs a model; null: 1 where the cluster has GPUs, else 0."""
    cpus: int = Field(default=1, ge=1)
    """CPUs of a worker, and the threads it may use."""
    price: float | None = Field(default=None, ge=0)
    """What an hour of a worker costs, in any currency, for `sdrrl prepare --dry-run`."""


@dataclass(frozen=True)
class Need:
    """What one worker needs. gpus: where the cluster has any. memory: bytes. workers: how many make sense at most."""

    gpus: int = 0
    memory: int = 0
    workers: int | None = None


def weights_of(model: str | None) -> int:
    """The bytes a checkpoint's weights take in memory, as far as its folder tells; 0 for one that is not here."""
    folder = Path(model) if model else Path()
    return sum(f.stat().st_size for f in folder.glob("*") if f.suffix in (".safetensors", ".bin")) if model else 0


class Item(Protocol):
    """One piece of work. It travels to a worker (it pickles), and so does its result."""

    def work(self, tool: Any) -> Any:
        """Do it."""

    def halves(self) -> "Sequence[Item]":
        """Two items that are the same work together; none where it is one record."""

    def joined(self, results: list[Any]) -> Any:
        """The result, out of those of its halves."""

    def rejected(self, reason: str) -> "Item":
        """In place of one record that its worker does not survive: leaves it out, with the reason."""


class Pool(Protocol):
    """workers: at work now. on: GPU or CPU, what they compute with."""

    @property
    def workers(self) -> int: ...

    @property
    def on(self) -> str: ...

    def map(self, items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        """(index, result) of every item, as they come."""


class Engine(Protocol):
    def pool(self, opener: Opener, need: Need, progress: Callable[[int], None]) -> AbstractContextManager[Pool]:
        """The workers, each with what `opener` gives; `progress` as of the opener, where items are done here."""

    def agreed(self, look: Callable[[], T]) -> T:
        """What `look` gives where the work is done. Raises: UserError, also where two nodes do not agree."""


# --- This process


class Local:
    """One item after the other, here. An item that kills the process kills the run: the next one goes on."""

    @contextmanager
    def pool(self, opener: Opener, need: Need, progress: Callable[[int], None]) -> Iterator["_Here"]:
        with opener(progress) as tool:
            yield _Here(tool, need)

    def agreed(self, look: Callable[[], T]) -> T:
        return look()


class _Here:
    workers = 1

    def __init__(self, tool: Any, need: Need):
        self._tool, self._need = tool, need

    @property
    def on(self) -> str:
        # A stage that has a model has imported torch, or has CTranslate2, which asks the same driver.
        torch = sys.modules.get("torch")
        return "GPU" if self._need.gpus and torch and torch.cuda.is_available() else "CPU"

    def map(self, items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        for i, item in enumerate(items):
            yield i, item.work(self._tool)


@contextmanager
def connect(keys: EngineKeys, shared: Mapping[str, str], logs: Path) -> Iterator[Engine]:
    """The engine of a recipe, checked before any work.

    Args:
        shared: key of the recipe -> the folder it names, which every node must see.
        logs: the folder of what workers and Ray itself have to say.

    Raises: UserError about a key of the recipe.
    """
    if keys.backend == "local":
        yield Local()
        return
    with Cluster(keys, shared, logs) as cluster:
        yield cluster


# --- A Ray cluster


class Cluster:
    """A Ray cluster for one run: found or started, its nodes looked at, its workers kept from stage to stage.

    Memories are served to the workers by one process on this node: their SQLite files are opened nowhere else.
    """

    def __init__(self, keys: EngineKeys, shared: Mapping[str, str], logs: Path):
        self.keys, self.shared, self.logs = keys, shared, logs.absolute()
        self.actors: list[Any] = []
        self._need: Need | None = None

    def __enter__(self) -> "Cluster":
        with ExitStack() as stack:
            with under("engine"):
                self._connect(stack)
            self._look_at_nodes()
            with under("engine"):
                self._check_size()
            here = _on(_runtime().get_node_id())
            self._memories = _remote(_Memories, num_cpus=0, max_restarts=-1, max_task_retries=-1, **here)
            stack.callback(self._stop, True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    # 1. Find the cluster, or start one.

    def _connect(self, stack: ExitStack) -> None:
        try:
            import ray
        except ImportError:
            fix = "run `pip install 'sdrrl-factory[ray]'`, or set engine.backend: local"
            raise UserError("ray is not installed", fix, key="backend") from None
        address = self._address()
        self.logs.mkdir(parents=True, exist_ok=True)
        # Whoever runs this inside a program that is connected already keeps that connection.
        if ray.is_initialized():
            return
        logger = logging.getLogger("ray")
        handler = logging.FileHandler(self.logs / "driver.log", delay=True)
        logger.addHandler(handler)
        logger.propagate = False
        stack.callback(logger.removeHandler, handler)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray 2.60 warns on the screen of a change to come in how it hides GPUs from workers that need none.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        quiet = {"configure_logging": False, "log_to_driver": False, "logging_level": logging.WARNING}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", include_dashboard=False, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as err:
            reason = " ".join(str(err).split())[:300]
            fix = "start it anew, with the same Ray and Python on every node"
            raise UserError(
                f"no use of the cluster at {address or 'this machine'} ({reason})", fix, key="address"
            ) from None
        stack.callback(ray.shutdown)
        # With log_to_driver=False too, Ray 2.60 prints a paragraph about each worker that dies.
        stack.callback(setattr, ray._private.worker, "_worker_logs_enabled", ray._private.worker._worker_logs_enabled)
        ray._private.worker._worker_logs_enabled = False
        if not address:
            # They lie in a folder of the system's that nobody would look for, and go with it.
            session = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
            stack.callback(_copy_logs, session, self.logs / "cluster")

    def _address(self) -> str | None:
        """host:port of the cluster to use, which answers; None where one is to be started."""
        from ray._private.services import find_gcs_addresses

        address = self.keys.address
        if address == "auto":
            address = os.environ.get("RAY_ADDRESS", "") or min(find_gcs_addresses(), default="")
            if address in ("", "local"):
                return None
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit() or "/" in host:
            raise UserError(f"{address} is no host:port", "name the head node's, or auto", key="address")
        # Ray itself would try for half a minute, and print.
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT).close()
        except OSError as err:
            fix = "start one there with `ray start --head`, or set address: auto"
            raise UserError(f"no Ray cluster at {address} ({err.strerror or err})", fix, key="address") from None
        return address

    # 2. Look at each node before any work.

    def _look_at_nodes(self) -> None:
        """Every node has this package, in this version, and sees the folders and the one the command runs in."""
        import ray

        token = f".engine-{uuid.uuid4().hex}"
        folders = {"": os.getcwd(), **{key: os.path.abspath(folder) for key, folder in self.shared.items()}}
        for key, folder in folders.items():
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
                Path(folder, token).write_text(token, encoding="utf-8")
            except OSError as err:
                what = f"{folder} cannot be written to ({err.strerror})"
                raise UserError(what, "choose another folder", key=key or "engine") from None
        try:
            look = ray.remote(num_cpus=0, max_retries=_RETRIES)(_look)
            looks = [(node, look.options(**_on(node["NodeID"])).remote(token, folders)) for node in _nodes()]
            for node, answer in looks:
                name = _name(node)
                version, python, unseen = _told(node, answer)
                if (version, python) != (__version__, sys.version_info[:2]):
                    what = f"node {name} has sdrrl_factory {version} on Python {'.'.join(map(str, python))}"
                    here = f"{__version__} on {'.'.join(map(str, sys.version_info[:2]))}"
                    raise UserError(what, f"install the same on every node; here it is {here}", key="engine.address")
                for key in unseen:
                    fix = "use a file system that all nodes have under the same path"
                    raise UserError(f"node {name} does not see {folders[key]}", fix, key=key or "engine.address")
        finally:
            for folder in folders.values():
                Path(folder, token).unlink(missing_ok=True)

    def agreed(self, look: Callable[[], T]) -> T:
        """As of `Engine`. Of a cluster with GPUs the nodes that have some are asked: the models run there."""
        import ray

        nodes = [node for node in _nodes() if node["Resources"].get("GPU")] or _nodes()
        looking = ray.remote(max_retries=_RETRIES)(_answer)
        # A share of a GPU, as a worker without any would not see that there is one.
        needs = {"num_cpus": 0, "num_gpus": 0.01 if nodes[0]["Resources"].get("GPU") else 0}
        start = self._start_of_worker()
        looks = [looking.options(**needs, **_on(node["NodeID"])).remote(_look_as_worker, start, look) for node in nodes]
        values = [_given(_told(node, answer)) for node, answer in zip(nodes, looks, strict=True)]
        for node, value in zip(nodes, values, strict=True):
            if value != values[0]:
                what = f"nodes {_name(nodes[0])} and {_name(node)} have different models, dictionaries or programs"
                raise UserError(what, f"make them alike: {_difference(values[0], value)}", key="engine.address")
        return values[0]

    def _check_size(self) -> None:
        """The cluster has what the recipe asks for."""
        keys, nodes = self.keys, [node["Resources"] for node in _nodes()]
        total = {name: int(sum(node.get(name, 0) for node in nodes)) for name in ("CPU", "GPU")}
        has = f"the cluster has {total['CPU']} CPUs and {total['GPU']} GPUs on {len(nodes)} nodes"
        workers, gpus = keys.workers or 1, self._gpus(Need(gpus=1))
        for key, each, name in (("gpus", gpus, "GPU"), ("cpus", keys.cpus, "CPU")):
            if each > max(int(node.get(name, 0)) for node in nodes):
                what = f"a worker with {each} {name}s, and no node has so many; {has}"
                raise UserError(what, f"lower engine.{key}, or add such a node", key=key)
            if workers * each > total[name]:
                what = f"{workers} workers with {each} {name}s each, and {has}"
                raise UserError(what, f"lower engine.workers or engine.{key}, or add nodes", key="workers")

    def _room(self, need: Need) -> int:
        """How many workers of this need the cluster has room for at a time."""
        gpus, memory = self._gpus(need), self._memory(need)
        return sum(_places(node["Resources"], gpus, self.keys.cpus, memory) for node in _nodes()) or 1

    def _memory(self, need: Need) -> int:
        """The memory of a worker, never more than a node has: Ray would wait for such a node for ever."""
        return min(need.memory, *(int(node["Resources"].get("memory", 0)) for node in _nodes()))

    def _gpus(self, need: Need) -> int:
        if not need.gpus:
            return 0
        if self.keys.gpus is not None:
            return self.keys.gpus
        return need.gpus if any(node["Resources"].get("GPU") for node in _nodes()) else 0

    # 3. The workers.

    @contextmanager
    def pool(self, opener: Opener, need: Need, progress: Callable[[int], None]) -> Iterator["_Actors"]:
        """As of `Engine`. Workers go on to the next stage that they have enough for; they start with the items."""
        import ray

        has = self._need
        if not has or self._gpus(has) != self._gpus(need) or has.memory < need.memory:
            self._stop()
            self._need = has = need
        size = min(self._room(has), self.keys.workers or sys.maxsize, need.workers or sys.maxsize)
        pool = _Actors(self, ray.put(opener), size, "GPU" if self._gpus(need) else "CPU")
        try:
            yield pool
        except BaseException:
            # What they have in work is of no use: Ctrl-C does not wait for it.
            self.actors += pool.rest()
            self._stop()
            raise
        self.actors += pool.rest()

    def new_actor(self) -> Any:
        assert self._need
        options = {
            "num_cpus": self.keys.cpus,
            "num_gpus": self._gpus(self._need),
            "memory": self._memory(self._need),
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        return _remote(_Worker, self._start_of_worker(), self._memories, **options)

    def _start_of_worker(self) -> "_Start":
        keep = {k: v for k, v in os.environ.items() if k.startswith(_ENVIRONMENT) or k.endswith("_API_KEY")}
        return _Start(os.getcwd(), keep, self.logs, self.keys.cpus)

    def _stop(self, memories: bool = False) -> None:
        """End the workers; memories: and the process that has the memories."""
        import ray

        for actor in [*self.actors, *([self._memories] if memories else [])]:
            with suppress(Exception):
                ray.kill(actor)
        self.actors = []


@dataclass(eq=False)
class _Job:
    """An item on its way. deaths: of workers that had it. depth: how often it was halved.

    whole, position: the job it is a part of, and which part; results: of its own halves.
    """

    item: Item
    index: int
    depth: int = 0
    whole: "_Job | None" = None
    position: int = 0
    deaths: int = 0
    results: list[Any] = field(default_factory=list)

    def halves(self) -> "list[_Job]":
        """The jobs of the item's halves; none where it has none."""
        halves = self.item.halves()
        self.results = [None] * len(halves)
        return [_Job(half, self.index, self.depth + 1, self, k) for k, half in enumerate(halves)]


class _Actors:
    """The pool of one stage. An actor is asked for one item at a time, so that its death tells which one it was."""

    def __init__(self, cluster: Cluster, opener: Any, size: int, on: str = "CPU"):
        self._cluster, self._opener, self._size, self.on = cluster, opener, size, on
        # Ray's future -> (actor, its job); no job: it opens its tool.
        self._busy: dict[Any, tuple[Any, _Job | None]] = {}
        self._idle: list[Any] = []
        # How often every item is halved, since a worker ran out of memory.
        self._depth = 0
        self._failed_starts = 0
        self._alive = time.monotonic()

    @property
    def workers(self) -> int:
        return len(self._idle) + sum(job is not None for _, job in self._busy.values())

    def rest(self) -> list[Any]:
        """The actors, for the next stage: what they open there takes the place of their tool."""
        return [*self._idle, *(actor for actor, _ in self._busy.values())]

    def map(self, items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        waiting = deque(_Job(item, i) for i, item in enumerate(items))
        at_work = 0
        while waiting or at_work:
            # 1. As many actors as there is work for; those of the stage before first.
            while len(self._busy) + len(self._idle) < min(self._size, len(waiting) + at_work):
                actors = self._cluster.actors
                actor = actors.pop() if actors else self._cluster.new_actor()
                self._busy[actor.open.remote(self._opener)] = actor, None
            # 2. Work for those that are ready; once memory has run out, in smaller pieces for all.
            while self._idle and waiting:
                job = waiting.popleft()
                halves = job.halves() if job.depth < self._depth else []
                if halves:
                    waiting.extendleft(reversed(halves))
                    continue
                actor = self._idle.pop()
                self._busy[actor.work.remote(job.item)] = actor, job
                at_work += 1
            # 3. What comes back: a result, a mistake of the user's, or word of a death.
            for job, answer, err in self._returned():
                at_work -= 1
                if err:
                    waiting.extendleft(reversed(self._again(job, _is_out_of_memory(err))))
                elif whole := _whole(job, _given(answer)):
                    yield whole

    def _returned(self) -> Iterator[tuple[_Job, Any, Exception | None]]:
        """Jobs that have ended: (job, its answer, None), or (job, None, how its worker died)."""
        import ray

        ready, _ = ray.wait(list(self._busy), timeout=1.0)
        for future in ready:
            actor, job = self._busy.pop(future)
            try:
                answer = ray.get(future)
            except ray.exceptions.RayTaskError:
                raise  # a fault in the work itself: no other worker would do better
            except ray.exceptions.RayError as err:
                count("lost workers")
                if job:
                    yield job, None, err
                    continue
                self._failed_starts += 1
                # One whose start raises an error is no accident: the next would too.
                if self._failed_starts == _STARTS or "creation task" in str(err):
                    what = f"workers end before they are ready ({' '.join(str(err).split())[:300]})"
                    raise UserError(what, "see the logs there", at=str(self._cluster.logs)) from None
                continue
            self._idle.append(actor)
            if job:
                yield job, answer, None
            else:
                _given(answer)
                self._failed_starts = 0
        if self.workers:
            self._alive = time.monotonic()
        elif time.monotonic() - self._alive > _STALLED:
            say(f"waiting for a worker: none was ready in {_STALLED:.0f} s (no place in the cluster, or a slow start)")
            self._alive = time.monotonic()

    def _again(self, job: _Job, out_of_memory: bool) -> list[_Job]:
        """What is tried when the worker of a job died: the same once more, then its halves, down to one record."""
        job.deaths += 1
        # A machine that goes away is no fault of the records; memory that runs out is one of their number.
        if out_of_memory or job.deaths > 1:
            halves = job.halves()
            if halves and out_of_memory:
                self._depth = max(self._depth, job.depth + 1)
            if halves:
                return halves
        if job.deaths == _DEATHS:
            why = "memory ran out" if out_of_memory else "its worker died"
            job.item = job.item.rejected(f"{why} {_DEATHS} times")
        return [job]


def _whole(job: _Job, result: Any) -> tuple[int, Any] | None:
    """(index, result) of an item whose last part has come."""
    while job.whole:
        whole = job.whole
        whole.results[job.position] = (result,)
        if not all(whole.results):
            return None
        result = whole.item.joined([part for (part,) in whole.results])
        job = whole
    return job.index, result


def _is_out_of_memory(err: Exception) -> bool:
    from ray.exceptions import OutOfMemoryError

    # Of an actor that its memory monitor has ended, Ray 2.60 tells in the message.
    return isinstance(err, OutOfMemoryError) or "NODE_OUT_OF_MEMORY" in str(err) or "low on memory" in str(err)


# --- What runs on the nodes


@dataclass(frozen=True)
class _Start:
    """What a worker takes over from the process that the user started."""

    folder: str
    environment: dict[str, str]
    logs: Path
    threads: int

    def take_over(self) -> None:
        os.chdir(self.folder)
        threads = str(self.threads)
        # Before torch is imported, which reads them once.
        os.environ.update(self.environment, SDRRL_THREADS=threads, OMP_NUM_THREADS=threads)
        self.logs.mkdir(parents=True, exist_ok=True)
        with open(self.logs / f"worker-{socket.gethostname()}-{os.getpid()}.log", "a", encoding="utf-8") as log:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)


class _Worker:
    """The actor."""

    def __init__(self, start: _Start, memories: Any):
        start.take_over()
        Memory.served = partial(_ask_memory, memories)
        self._stack, self._tool = ExitStack(), None

    def open(self, opener: Opener) -> tuple[bool, Any]:
        return _answer(self._open, opener)

    def _open(self, opener: Opener) -> None:
        self._stack.close()
        self._tool = None
        gc.collect()
        # What the model before had of a GPU goes back.
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()
        self._tool = self._stack.enter_context(opener(_unseen))

    def work(self, item: Item) -> tuple[bool, Any]:
        return _answer(item.work, self._tool)


class _Memories:
    """The actor that has the SQLite files of the workers' memories open, on the node of the run."""

    def __init__(self) -> None:
        self._memories: dict[Path, Memory] = {}

    def ask(self, path: Path, method: str, kind: str, value: Any) -> tuple[bool, Any]:
        memory = self._memories.setdefault(path, Memory(path))
        arguments = (kind,) if value is None else (kind, value)
        return _answer(getattr(memory, method), *arguments)


def _ask_memory(memories: Any, path: Path, method: str, kind: str, value: Any) -> Any:
    import ray

    # The worker's folder is the run's: the path is the same there, made absolute.
    return _given(ray.get(memories.ask.remote(path.absolute(), method, kind, value)))


def _answer(function: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
    """(True, result), or (False, mistake): Ray would wrap an exception in one of its own that prints a traceback."""
    try:
        return True, function(*args)
    except UserError as err:
        return False, err


def _given(answer: tuple[bool, Any]) -> Any:
    """The result of an `_answer`. Raises: the mistake."""
    is_result, value = answer
    if not is_result:
        raise value
    return value


def _look(token: str, folders: Mapping[str, str]) -> tuple[str, tuple[int, int], list[str]]:
    """Of the node this runs on: (version of this package, of Python, the keys of folders that it does not see)."""
    unseen = []
    for key, folder in folders.items():
        path = Path(folder, token)
        if not path.is_file() or path.read_text(encoding="utf-8") != token:
            unseen.append(key)
    return __version__, sys.version_info[:2], unseen


def _look_as_worker(start: _Start, look: Callable[[], T]) -> T:
    start.take_over()
    return look()


def _unseen(rows: int) -> None:
    """Records done inside an item: what a worker does not tell."""


# --- Ray, in words


def _remote(kind: type, *args: Any, **options: Any) -> Any:
    import ray

    return ray.remote(kind).options(**options).remote(*args)


def _runtime() -> Any:
    import ray

    return ray.get_runtime_context()


def _nodes() -> list[dict[str, Any]]:
    """The nodes that are alive, in an order that does not change."""
    import ray

    return sorted((node for node in ray.nodes() if node["Alive"]), key=itemgetter("NodeID"))


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"


def _told(node: Mapping[str, Any], future: Any) -> Any:
    """What a node was asked. Raises: UserError: it does not answer, or has no such package."""
    import ray

    try:
        return ray.get(future, timeout=_ANSWER)
    except ray.exceptions.RayError as err:
        text = " ".join(str(err).split())
        lacks = "sdrrl_factory" in text and ("ModuleNotFoundError" in text or "No module named" in text)
        what = "has no sdrrl_factory" if lacks else f"does not answer ({text[:200]})"
        fix = f"install sdrrl-factory {__version__} there, for the Python that Ray runs with"
        raise UserError(f"node {_name(node)} {what}", fix, key="engine.address") from None


def _on(node_id: str) -> dict[str, Any]:
    """The option that keeps a task or an actor on a node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def _places(node: Mapping[str, float], gpus: int, cpus: int, memory: int) -> int:
    """How many workers a node has room for."""
    needs = (("GPU", gpus), ("CPU", cpus), ("memory", memory))
    return min(int(node.get(name, 0) // need) for name, need in needs if need)


def _difference(one: Any, other: Any) -> str:
    """Where two values of a dataclass differ."""
    if not is_dataclass(one):
        return f"{one!r} and {other!r}"
    names = [key.name for key in fields(one) if getattr(one, key.name) != getattr(other, key.name)]
    return ", ".join(f"{name} {getattr(one, name)!r} and {getattr(other, name)!r}" for name in names)


def _copy_logs(source: Path, target: Path) -> None:
    with suppress(OSError):
        shutil.copytree(source, target, dirs_exist_ok=True)


def threads() -> int:
    """How many threads a model or a program may use here: all of the machine's, or those of a worker."""
    return int(os.environ.get("SDRRL_THREADS", "0")) or os.cpu_count() or 1
