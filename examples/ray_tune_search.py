"""The search of `optuna_search.py` with Ray Tune: successive halving ends bad trials while they finetune.

Each trial runs in a process of Ray, which gets the evaluator as it is, and reports to Tune through the events
of its binding. Tune ends a trial by an exit out of its report, which closes the binding; the process goes on.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from optuna_search import EVERY, LAYERS, SIZE_MATTERS, STEPS, nonzero, trained
from ray import tune
from torch import nn
from torch.nn.utils import prune

import rebind


def finetune(config: dict[str, Any], evaluator: rebind.Evaluator, model: nn.Module) -> None:
    """Do one trial: make its copy of the dense CNN sparse, finetune it, and report every so many steps."""
    torch.set_num_threads(1)
    size = sum(model.get_submodule(name).weight.numel() for name in LAYERS)
    for name in LAYERS:
        prune.l1_unstructured(model.get_submodule(name), "weight", config[name])
    torch.manual_seed(config["seed"])
    with rebind.bind(evaluator, model) as binding:

        def listen(event: Any) -> None:
            if event.kind == "step" and event.step % EVERY == 0:
                accuracy, _ = binding.evaluate()
                left = nonzero(model)
                value = accuracy - SIZE_MATTERS * left / size
                tune.report({"value": value, "accuracy": accuracy, "weights": left, "steps": event.step})

        binding.on_event(listen)
        binding.train(max_steps=STEPS, progress=False)


def search(evaluator: rebind.Evaluator, dense: nn.Module, trials: int, folder: Path) -> tune.ResultGrid:
    """Search on the Ray that is running; two trials at a time."""
    trainable = tune.with_parameters(finetune, evaluator=evaluator, model=dense)
    space = {name: tune.uniform(0.3, 0.95) for name in LAYERS}
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={**space, "seed": tune.randint(0, 1 << 31)},
        tune_config=tune.TuneConfig(
            metric="value",
            mode="max",
            num_samples=trials,
            reuse_actors=True,
            search_alg=tune.search.BasicVariantGenerator(random_state=0, max_concurrent=2),
            scheduler=tune.schedulers.ASHAScheduler(
                time_attr="steps", max_t=STEPS, grace_period=EVERY, reduction_factor=2
            ),
        ),
        run_config=tune.RunConfig(storage_path=str(folder), name="search", verbose=0, log_to_file=False),
    ).fit()


def main(trials: int = 12) -> None:
    """Search on a Ray of its own on this machine, and print what came out."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    try:
        evaluator, dense, accuracy = trained()
        with tempfile.TemporaryDirectory() as folder:
            results = search(evaluator, dense, trials, Path(folder))
        steps = [result.metrics["steps"] for result in results]
        print(f"dense: {nonzero(dense)} weights, {accuracy:.3f}")
        print(f"{trials} trials, {sum(step < STEPS for step in steps)} of them stopped early")
        print(f"{sum(steps)} steps, {sum(steps) / (STEPS * trials):.0%} of what all of them would take")
        best = results.get_best_result().metrics
        print(f"the best one: {best['weights']} weights, {best['accuracy']:.3f}")
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
