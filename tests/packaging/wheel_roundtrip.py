"""What a user's first minute needs of an installed wheel; run by an environment that holds nothing else."""

import importlib.metadata
import sys

import torch

import rebind


def train(model, optimizers, criterion, max_steps=None):
    for _ in range(max_steps):
        optimizers.zero_grad()
        criterion(model(torch.ones(4, 2)), torch.zeros(4, 1)).backward()
        optimizers.step()


def main():
    assert "site-packages" in rebind.__file__, rebind.__file__
    files = [str(file) for file in importlib.metadata.files("rebind")]
    strangers = [name for name in files if not name.startswith(("rebind/", "rebind-", "../../../bin/"))]
    assert not strangers, f"installed outside rebind/: {strangers}"
    assert "rebind/py.typed" in files
    model = torch.nn.Linear(2, 1)
    optimizer = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
    evaluator = rebind.TorchEvaluator(train, optimizer, torch.nn.functional.mse_loss)
    again = rebind.loads(rebind.dumps(evaluator), trusted=True)
    assert again == evaluator
    with rebind.bind(again, torch.nn.Linear(2, 1)) as binding:
        binding.train(max_steps=2)
    heavy = {"pytorch_lightning", "transformers", "sklearn", "dask", "ray"} & set(sys.modules)
    assert not heavy, heavy
    print(f"rebind {rebind.__version__}: the wheel imports, and an evaluator makes the round trip")


if __name__ == "__main__":
    main()
