"""The user guide's snippets for `TorchEvaluator`, with our names and a tiny model for the ellipses."""

# ruff: noqa: A002 - torch's own argument names
# ruff: noqa: N812 - the guide's own line
# ruff: noqa: PLR0917 - the guide's signatures are contracts

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import ExponentialLR

import rebind

DATA = [(torch.rand(4, 6), torch.randint(0, 3, (4,))) for _ in range(5)]
STEPS = []


def make_model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.LogSoftmax(dim=1))


def training_func(
    model, optimizers, criterion, lr_schedulers=None, max_steps=None, max_epochs=None, *args, **kwargs
):
    model.train()

    # prepare data
    train_dataloader = DATA

    # nni may change the training duration by setting max_steps or max_epochs
    total_epochs = max_epochs or 2
    total_steps = max_steps or None
    current_steps = 0

    # training
    for _ in range(total_epochs):
        for x, y in train_dataloader:
            optimizers.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizers.step()
            STEPS.append(float(loss.detach()))
            current_steps += 1
            # stop the training loop when reach the total_steps
            if total_steps and current_steps == total_steps:
                return


def evaluating_func(model):
    hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in DATA)
    accuracy = f1 = hits / 20
    # take the f1 score as the metric to NNI
    return f1, {"f1": f1, "acc": accuracy}


def test_the_snippets_of_the_user_guide_work_unchanged():
    """One optimizer, one scheduler, all six parts; the evaluator trains and evaluates a new model."""
    model: torch.nn.Module = make_model()

    # single optimizer
    optimizers = rebind.trace(torch.optim.SGD)(model.parameters(), lr=0.001)
    # single lr_scheduler
    lr_schedulers = rebind.trace(ExponentialLR)(optimizer=optimizers, gamma=0.1)
    criterion = F.nll_loss

    evaluator = rebind.TorchEvaluator(
        training_func=training_func,
        optimizers=optimizers,
        criterion=criterion,
        lr_schedulers=lr_schedulers,
        dummy_input=torch.rand(8, 6),
        evaluating_func=evaluating_func,
    )
    STEPS.clear()
    with rebind.bind(evaluator, make_model()) as binding:
        binding.train(max_steps=7)
        assert len(STEPS) == 7
        score, info = binding.evaluate()
    assert info == {"f1": score, "acc": score}


def test_lists_of_optimizers_and_schedulers_come_back_as_lists():
    """The second form of the guide's snippets."""
    model = make_model()
    forms = []

    def train(
        model, optimizers, criterion, lr_schedulers=None, max_steps=None, max_epochs=None, *args, **kwargs
    ):
        forms.append(
            (type(optimizers), type(lr_schedulers), [type(item) for item in (*optimizers, *lr_schedulers)])
        )

    # or, a list of optimizers
    optimizers = [
        rebind.trace(torch.optim.SGD)([model[0].weight]),
        rebind.trace(torch.optim.Adam)([model[0].bias]),
    ]
    # or, a list of lr_schedulers
    lr_schedulers = [rebind.trace(ExponentialLR)(optimizer=optimizer, gamma=0.1) for optimizer in optimizers]
    evaluator = rebind.TorchEvaluator(train, optimizers, F.nll_loss, lr_schedulers, model=model)
    with rebind.bind(evaluator, make_model()) as binding:
        binding.finetune()
    expected = [torch.optim.SGD, torch.optim.Adam, ExponentialLR, ExponentialLR]
    assert forms == [(list, list, expected)]


def test_the_patched_criterion_of_the_user_guide_trains():
    """A criterion that adds the model's weights, patched by the one who trains."""
    model = make_model()
    criterion = F.nll_loss

    def patched_criterion(input, target):
        original_loss = criterion(input, target)

        # add l1 loss for all model parameters
        l1_loss = 0
        for param in model.parameters():
            l1_loss += param.norm(p=1)

        return original_loss + l1_loss

    before = [param.detach().clone() for param in model.parameters()]
    training_func(
        model, torch.optim.SGD(model.parameters(), lr=0.1), criterion=patched_criterion, max_steps=2
    )
    assert not all(map(torch.equal, before, model.parameters()))
