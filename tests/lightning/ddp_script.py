"""Trains on two processes that Lightning starts, or on one with the same global batch; saves the weights.

Run as `python ddp_script.py DEVICES FILE`: both kinds of optimization, one after the other.
"""

import sys
import warnings

import torch
from lightning_material import QUIET, Data, Net, mse
from pytorch_lightning import Trainer

import rebind

warnings.simplefilter("ignore")


class Plain(Net):
    """Without batch norm and dropout, whose results depend on how a batch is shared out."""

    def __init__(self, form="optimizer"):
        super().__init__(form)
        self.norm, self.drop = torch.nn.Identity(), torch.nn.Identity()

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("default", -mse(self(x), y), sync_dist=True)


def two_groups(net):
    return [torch.optim.Adam(net.fc1.parameters(), lr=0.01), torch.optim.SGD(net.fc2.parameters(), lr=0.02)]


class Several(Plain):
    def configure_optimizers(self):
        return two_groups(self)

    def manual_step(self, batch):
        x, y = batch
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(mse(self(x), y))
        for optimizer in optimizers:
            optimizer.step()


def main():
    devices, path = int(sys.argv[1]), sys.argv[2]
    found = {form: train(devices, form) for form in ("optimizer", "manual")}
    if trainer_rank() == 0:
        torch.save(found, path)


def train(devices, form):
    torch.manual_seed(0)
    model = Several(form) if form == "manual" else Plain(form)
    trainer = rebind.trace(Trainer)(
        **{**QUIET, "devices": devices}, max_epochs=2, strategy="ddp" if devices > 1 else "auto",
        num_sanity_val_steps=0,
    )  # fmt: skip
    # All data are one batch: under ddp Lightning shuffles them in a way of its own.
    evaluator = rebind.LightningEvaluator(trainer, rebind.trace(Data)(8 // devices, 8))
    seen = []
    with rebind.bind(evaluator, model) as binding:
        binding.patch_loss(lambda loss: loss + 0.01 * model.fc1.weight.square().sum())
        binding.before_step(lambda: seen.append(model.fc1.weight.grad.clone()), optimizer=0)
        binding.train(max_steps=6)
        binding.train(max_steps=1)
        assert binding.steps == 7, binding.steps
        binding.after_step(lambda: binding.stop() if trainer_rank() == 0 else None)
        binding.train(max_steps=100)
        assert binding.steps == 8, binding.steps
        score = binding.evaluate().score
    assert model._trainer is None
    return {"weights": model.state_dict(), "gradients": seen, "score": score}


def trainer_rank():
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


if __name__ == "__main__":
    main()
