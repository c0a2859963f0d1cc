"""`llamafactory-cli train RECIPE` on a Ray cluster without GPUs; run as a program.

LLaMA-Factory 0.9.5 takes each CPU of such a cluster for a device and asks for ten CPUs beside each: no cluster has ten
times the CPUs that it has. Here each worker is given one. Nothing else is touched.
"""

import sys
from typing import Any


def main(recipe: str) -> None:
    import ray
    from llamafactory import cli
    from llamafactory.train import tuner

    options = tuner.get_ray_remote_config_for_worker

    def places(count: int) -> tuple[Any, dict[str, float]]:
        bundle = {"CPU": 1.0}
        return ray.util.placement_group([bundle] * count, strategy="SPREAD"), bundle

    def of_worker(**keys: Any) -> dict[str, Any]:
        return options(**keys) | {"num_cpus": 1}

    tuner.get_placement_group, tuner.get_ray_remote_config_for_worker = places, of_worker
    sys.argv = ["llamafactory-cli", "train", recipe]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1])
