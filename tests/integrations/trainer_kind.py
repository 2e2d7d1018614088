"""The same training as in `nni_material`, by the Trainer of transformers."""

import torch
from nni_material import BATCH, OPTIONS, TEST, TRAINING, loss_of
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments

from rebind import TransformersEvaluator, trace


class Named(Dataset):
    """Images and labels by name, as a Trainer wants them."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image, label = self.data[index]
        return {"images": image, "labels": label}


class InOrder(Trainer):
    """Takes the images in their order, and computes the loss as the other kinds do."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(train_dataset or self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scores = []

        def noted(images):
            scores.append(model(images))
            return scores[0]

        loss = loss_of((inputs["images"], inputs["labels"]), noted)
        return (loss, {"logits": scores[0]}) if return_outputs else loss


def accuracy(prediction):
    right = torch.tensor(prediction.predictions).argmax(1) == torch.tensor(prediction.label_ids)
    return {"default": right.float().mean().item()}


def trainer_evaluator(model):
    arguments = trace(TrainingArguments)(
        output_dir="runs",
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        num_train_epochs=1,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        label_names=["labels"],
        remove_unused_columns=False,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=len(TEST),
    )
    optimizer = trace(torch.optim.SGD)(model.parameters(), **OPTIONS)
    trainer = trace(InOrder)(
        model,
        arguments,
        train_dataset=Named(TRAINING),
        eval_dataset=Named(TEST),
        compute_metrics=accuracy,
        optimizers=(optimizer, None),
    )
    return TransformersEvaluator(trainer)
