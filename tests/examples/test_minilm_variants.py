"""Smaller MiniLMs compute what the larger ones do without the parts that are gone."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from rebind import TorchEvaluator, bind, trace

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import minilm_variants as variants

TOKENS = torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(0))
LAYERS, HEADS, SIZE, NEURONS = 6, 12, 4, 1536


class Small(nn.Module):
    """As many layers, heads and neurons as in MiniLM, so that all variants can be made of it, but narrow."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=50,
            hidden_size=HEADS * SIZE,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=NEURONS,
            max_position_embeddings=16,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.body = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(HEADS * SIZE, 4)
        with torch.no_grad():  # of different sizes, so that the small ones can be told
            for parameter in self.body.parameters():
                parameter.mul_(torch.rand_like(parameter) * 4)
        self.body.encoder.layer[:3].requires_grad_(False)

    def forward(self, tokens):
        return self.head(self.body(tokens).last_hidden_state.mean(1))


@torch.no_grad()
def scores(model):
    return model.eval()(TOKENS)


def layers(model):
    return model.body.encoder.layer


def silence_heads(model, smaller):
    """Let each head that is gone write nothing; found by the rows of the value weights that are left."""
    for whole, left in zip(layers(model), layers(smaller), strict=True):
        rows = whole.attention.self.value.weight.unflatten(0, (HEADS, SIZE))
        kept = left.attention.self.value.weight.unflatten(0, (-1, SIZE))
        gone = [not any(torch.equal(head, one) for one in kept) for head in rows]
        assert gone.count(True) == HEADS - len(kept) == 6
        columns = torch.tensor(gone).repeat_interleave(SIZE)
        whole.attention.output.dense.weight.data[:, columns] = 0


def silence_neurons(model, smaller):
    """Let each neuron that is gone write nothing."""
    for whole, left in zip(layers(model), layers(smaller), strict=True):
        kept = {row.numpy().tobytes() for row in left.intermediate.dense.weight.detach()}
        gone = [row.numpy().tobytes() not in kept for row in whole.intermediate.dense.weight.detach()]
        assert gone.count(True) == NEURONS - len(kept) == 768
        whole.output.dense.weight.data[:, torch.tensor(gone)] = 0


@pytest.mark.parametrize(
    ("name", "silence"),
    [
        ("6 of 12 heads", [silence_heads]),
        ("768 of 1536 neurons", [silence_neurons]),
        ("6 heads, 768 neurons", [silence_heads, silence_neurons]),
    ],
)
def test_a_structurally_pruned_model_is_the_whole_one_with_parts_silenced(name, silence):
    """It has fewer parameters, the same scores, and what was frozen is."""
    model, whole = variants.VARIANTS[name].shrink(Small()), Small()
    count = sum(p.numel() for p in model.parameters())
    assert count < sum(p.numel() for p in whole.parameters())
    for part in silence:
        part(whole, model)
    assert not torch.allclose(scores(whole), scores(Small()), rtol=1e-3)
    torch.testing.assert_close(scores(model), scores(whole), rtol=1e-4, atol=1e-4)
    frozen = {n for n, p in whole.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, p in model.named_parameters() if not p.requires_grad}


def test_the_heads_and_neurons_that_are_kept_are_the_largest():
    """One that is made ten times as large is never taken away."""
    model = Small()
    with torch.no_grad():
        layers(model)[2].attention.self.value.weight[5 * SIZE : 6 * SIZE] *= 10
        layers(model)[4].intermediate.dense.weight[77] *= 10
    head = layers(model)[2].attention.self.value.weight[5 * SIZE : 6 * SIZE].clone()
    neuron = layers(model)[4].intermediate.dense.weight[77].clone()
    variants.with_fewer_neurons(variants.with_fewer_heads(model, 1), 1)
    assert torch.equal(layers(model)[2].attention.self.value.weight, head)
    assert torch.equal(layers(model)[4].intermediate.dense.weight[0], neuron)


def test_a_model_of_fewer_layers_skips_the_others():
    """Its scores are those of the whole one in which the others pass on what they get."""

    class Nothing(nn.Module):
        def forward(self, hidden, *_, **__):
            return hidden

    model, whole = variants.VARIANTS["4 of 6 layers"].shrink(Small()), Small()
    for i in (1, 4):
        layers(whole)[i] = Nothing()
    torch.testing.assert_close(scores(model), scores(whole))
    assert len(layers(model)) == 4


@pytest.mark.parametrize(("name", "share"), [("50 % zeros", 0.5), ("80 % zeros", 0.8)])
def test_masks_take_the_smallest_weights_of_all_layers_together(name, share):
    """What is kept is larger than what is not, and equal to what it was; zeros become part of the weights."""
    variant, whole = variants.VARIANTS[name], Small()
    model = variants.finished(variant, variant.shrink(Small()))
    linears = [n for n, m in whole.body.encoder.named_modules() if isinstance(m, nn.Linear)]
    before = torch.cat([whole.body.encoder.get_submodule(n).weight.flatten() for n in linears]).detach()
    after = torch.cat([model.body.encoder.get_submodule(n).weight.flatten() for n in linears]).detach()
    assert (after == 0).float().mean() == pytest.approx(share, abs=1e-4)
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()
    assert torch.equal(after[after != 0], before[after != 0])
    assert list(model.state_dict()) == list(whole.state_dict())
    zeros = sum(int((p == 0).sum()) for p in whole.parameters())
    count = sum(p.numel() for p in whole.parameters())
    assert variants.nonzero(model) == count - zeros - round(share * len(before))


def test_weights_in_8_bits_are_those_that_were_trained():
    """torch's int8 modules hold the very weights that the layers computed with while they were trained."""
    variant = variants.VARIANTS["8 bits"]
    model = variant.shrink(Small())
    kept = variants.finished(variant, model)
    for name, linear in model.body.encoder.named_modules():
        if isinstance(linear, nn.Linear):
            packed = kept.body.encoder.get_submodule(name).weight()
            assert packed.dtype == torch.qint8
            torch.testing.assert_close(packed.dequantize(), linear.weight.detach())
            assert not torch.equal(linear.weight, linear.parametrizations.weight.original)
    torch.testing.assert_close(scores(kept), scores(model), rtol=0.1, atol=0.1)


def train(model, optimizers, criterion, max_steps=None):
    for _ in range(max_steps):
        optimizers.zero_grad()
        criterion(model.train()(TOKENS), torch.tensor([0, 1, 2])).backward()
        optimizers.step()


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_each_variant_trains_through_a_binding_as_by_an_optimizer_of_its_own(name):
    """The evaluator of the whole model; equal bits, also in what is made of the trained model."""
    variant, recorded = variants.VARIANTS[name], Small()
    optimizer = trace(torch.optim.AdamW)([p for p in recorded.parameters() if p.requires_grad], lr=0.01)
    evaluator = TorchEvaluator(train, optimizer, nn.functional.cross_entropy, model=recorded)
    ours = variant.shrink(Small())
    theirs = copy.deepcopy(ours) if variant.finish is variants._as_it_is else variant.shrink(Small())
    missing = "ignore" if variant.lacks else "raise"
    with bind(evaluator, ours, variant.rename, missing) as binding:
        binding.train(max_steps=3)
        trained = {id(p) for group in binding.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in ours.parameters() if p.requires_grad}
    own = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=0.01)
    train(theirs, own, nn.functional.cross_entropy, 3)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    assert [key for key, value in mine.items() if not torch.equal(value, other[key])] == []
    assert torch.equal(scores(variants.finished(variant, ours)), scores(variants.finished(variant, theirs)))
