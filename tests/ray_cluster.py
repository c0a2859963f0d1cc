"""A Ray cluster of two nodes on this machine: real raylets, a CPU each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.cluster_utils import Cluster

SMALL = 80 * 2**20  # bytes of each node's object store: only paths travel


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """The cluster; this process is connected to it, so that the processes that look at its nodes last."""
    # Ray makes its workers nice: beside other work on two cores they would take minutes to start.
    os.environ |= {"RAY_worker_niceness": "0", "RAY_worker_register_timeout_seconds": "300"}
    head = {"num_cpus": 1, "object_store_memory": SMALL, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes.add_node(num_cpus=1, object_store_memory=SMALL)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()
