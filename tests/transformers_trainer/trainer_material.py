"""A small model and data for the Trainer of transformers, and the user's own Trainer as oracle."""

import copy

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from rebind import TransformersEvaluator, trace

QUIET = {
    "output_dir": "runs",
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "per_device_train_batch_size": 4,
}


class Rows(Dataset):
    """Rows of numbers and the class of each; all made from their index."""

    def __init__(self, count=32, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 6, generator=generator)
        self.labels = (self.x.sum(1) > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.labels[index]}


class Net(nn.Module):
    """With batch norm and dropout: whatever runs it once too often, or in the wrong mode, is seen."""

    def __init__(self, width=8):
        super().__init__()
        self.fc1 = nn.Linear(6, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.25)
        self.fc2 = nn.Linear(width, 2)

    def forward(self, x, labels=None):
        logits = self.fc2(self.drop(torch.relu(self.norm(self.fc1(x)))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Configured(Net):
    """With the configuration that a Trainer asks for where it smooths labels."""

    def __init__(self, width=8):
        super().__init__(width)
        self.config = PreTrainedConfig()


class Wrapped(nn.Module):
    """A wrapper of a compression tool: the names of all parameters change."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, labels=None):
        return self.module(x, labels=labels)


class Plain(nn.Module):
    """Without dropout and batch norm, so that a batch in parts can be compared with a whole one."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 2)

    def forward(self, x, labels=None):
        logits = self.fc(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Rates(TrainerCallback):
    """Notes the learning rates of each step."""

    def __init__(self, rates):
        self.rates = rates

    def on_step_end(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append([group["lr"] for group in optimizer.param_groups])


class OwnLoss(Trainer):
    """Computes the loss by itself."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs["logits"], inputs["labels"], label_smoothing=0.1)
        return (loss, outputs) if return_outputs else loss


class OwnOptimizer(Trainer):
    """Builds its optimizer by itself, and hands on its arguments by position."""

    def __init__(self, *args, lr=0.05, **kwargs):
        super().__init__(*args, **kwargs)
        self.lr = lr

    def create_optimizer(self, model=None):
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=0.9)
        return self.optimizer


def summed_loss(outputs, labels, num_items_in_batch=None):
    """A loss over all batches of a step, as transformers asks for."""
    total = nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum")
    return total / num_items_in_batch


def accuracy(prediction):
    return {"default": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def net(width=8, seed=0, kind=Net):
    torch.manual_seed(seed)
    return kind(width) if issubclass(kind, Net) else kind()


def wrapped_net():
    return Wrapped(net(seed=3))


def arguments(**options):
    return TrainingArguments(**{**QUIET, "max_steps": 6, **options})


def traced_arguments(**options):
    return trace(TrainingArguments)(**{**QUIET, "max_steps": 6, **options})


def bert(layers=1):
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=8,
        )
    )


class Tokens(Dataset):
    def __init__(self, count=16):
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, 20, (count, 6), generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return {"input_ids": self.ids[index], "labels": self.ids[index, 0] % 2}


def sgd(model):
    return trace(torch.optim.SGD)(model.parameters(), lr=0.1, momentum=0.9)


def sgd_and_step(model):
    optimizer = sgd(model)
    return optimizer, trace(torch.optim.lr_scheduler.StepLR)(optimizer, 2, 0.5)


def grouped(model):
    named = dict(model.named_parameters())
    decayed = [p for name, p in named.items() if name.endswith("weight")]
    others = [p for name, p in named.items() if not name.endswith("weight")]
    optimizer = trace(torch.optim.AdamW)(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "lr": 0.02}], lr=0.01
    )
    return optimizer, trace(torch.optim.lr_scheduler.ExponentialLR)(optimizer, 0.9)


# How optimizers are given to a Trainer: what a model makes of each is its further arguments.
WAYS = {
    "default": lambda model: {},
    "optimizer_cls_and_kwargs": lambda model: {
        "optimizer_cls_and_kwargs": (torch.optim.Adam, {"lr": 0.02, "betas": (0.8, 0.9)})
    },
    "optimizer": lambda model: {"optimizers": (sgd(model), None)},
    "optimizer and scheduler": lambda model: {"optimizers": sgd_and_step(model)},
    "groups": lambda model: {"optimizers": grouped(model)},
}


def evaluator_of(way="default", *, model=None, kind=Trainer, given=None, data=None, held_out=None, **options):
    """An evaluator, made with a model that is not the one that is bound."""
    model = net() if model is None else model
    trainer = trace(kind)(
        model,
        arguments(**options),
        train_dataset=Rows() if data is None else data,
        eval_dataset=Rows(8, seed=1) if held_out is None else held_out,
        **WAYS[way](model),
        **(given or {}),
    )
    return TransformersEvaluator(trainer)


def by_own_trainer(model, way="default", *, kind=Trainer, given=None, data=None, **options):
    """The user's own code on a copy of a model: the copy, and the learning rates after each step."""
    model, rates = copy.deepcopy(model), []
    given = dict(given or {})
    callbacks = [*given.pop("callbacks", []), Rates(rates)]
    trainer = kind(
        model,
        arguments(**options),
        train_dataset=Rows() if data is None else data,
        eval_dataset=Rows(8, seed=1),
        callbacks=callbacks,
        **WAYS[way](model),
        **given,
    )
    trainer.train()
    return model, rates


def assert_same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
