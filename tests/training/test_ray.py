"""Training on Ray, LLaMA-Factory's own way: the plugin is live in its workers, as in any Python process."""

import sys

import pytest

from tests.conftest import ROOT, command
from tests.ray_cluster import two_nodes
from tests.training.commands import write_recipe
from tests.training.conftest import TRAINING, distance, log_of, weighted

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


def test_one_step_of_two_workers_is_equation_6(recipe, exact, tmp_path):
    model = exact("full")
    before = model.parameters()
    model.step(weighted(TRAINING))
    with two_nodes() as cluster:
        # Ray's dashboard, which LLaMA-Factory would ask for the address, is not needed where the recipe has it.
        keys = {"ray_num_workers": 2, "master_addr": cluster.head_node.node_ip_address}
        # More places than rows: the sampler repeats some, which must not count.
        keys |= {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3}
        path = write_recipe(tmp_path / "r.yaml", recipe | keys)
        environment = {"USE_RAY": "1", "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)}
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = command(sys.executable, "-m", "tests.training.on_ray", path, cwd=tmp_path, **environment)
    assert distance(before, model.parameters(), tmp_path / "out/model.safetensors") < 1e-4
    assert (done.stdout + done.stderr).count("sdrrl: subset-weighted loss") == 1
    assert sum(n for key, n in log_of(tmp_path / "out")[0].items() if key.startswith("samples_")) == 16
