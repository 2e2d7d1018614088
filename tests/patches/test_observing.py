"""Hooks by name, and collections within a bound on memory; the oracle is autograd itself."""

import collections
import copy
import gc
import pickle
import weakref

import pytest
import torch
from patch_material import BATCHES, TARGETS, bound, mse, net, train
from torch import nn

from rebind import BindError, TorchEvaluator, TrainingError, bind, trace
from rebind.testing import assert_pristine


def outputs_of(count, path="fc1"):
    """What a module gave in a plain training with the same random numbers."""
    model, seen = net(), []
    torch.manual_seed(1)
    model.get_submodule(path).register_forward_hook(lambda *given: seen.append(given[2].detach().clone()))
    train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), mse, max_steps=count)
    return seen


def test_collect_keeps_the_last_outputs_oldest_first():
    with bound() as binding:
        collection = binding.collect("fc1", keep=3)
        binding.train(5)
        assert collection.count == 5
        assert len(collection) == 3
        assert all(map(torch.equal, collection.values(), outputs_of(5)[-3:]))
        assert torch.equal(collection.value, collection.values()[-1])
        collection.revert()
        binding.train(1)
        assert collection.count == 5
        collection.clear()
        assert (collection.count, collection.values(), collection.value) == (0, [], None)
        assert bool(collection)


def test_collect_keeps_the_running_mean():
    with bound() as binding:
        collection = binding.collect("fc1", reduce="mean")
        binding.train(7)
    torch.testing.assert_close(collection.value, torch.stack(outputs_of(7)).mean(0))
    assert len(collection.values()) == 1


def test_collect_keeps_what_a_function_makes_of_it():
    def positive(state, value):
        share = (value > 0).float().mean()
        return share if state is None else torch.maximum(state, share)

    with bound() as binding, binding.collect("norm", reduce=positive) as collection:
        binding.train(6)
    shares = [(value > 0).float().mean() for value in outputs_of(6, "norm")]
    assert collection.value == max(shares)


def test_inputs_and_gradients_can_be_collected():
    with bound() as binding:
        inputs = binding.collect("fc1", keep=2, source="input")
        gradients = binding.collect("fc2", keep=1, source="grad_output")
        outputs = binding.collect("fc2", keep=1)
        binding.train(2)
    assert all(map(torch.equal, inputs.values(), BATCHES[:2]))
    torch.testing.assert_close(gradients.value, 2 * (outputs.value - TARGETS[1]) / 4)


def test_gradients_are_collected_in_the_structure_of_the_outputs():
    """Also those of a first layer, whose inputs have none, and of outputs in a mapping."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(2, 2)

        def forward(self, x):
            return {"twice": 2 * self.fc1(x), "given": x, "pair": (self.fc1(x), 3 * self.fc1(x))}

    def train(model, optimizer, criterion):
        out = model(torch.ones(4, 2))
        criterion(out["twice"] + out["pair"][1], torch.zeros(4, 2)).backward()

    model = Branches()
    evaluator = TorchEvaluator(
        train, trace(torch.optim.SGD)(model.parameters(), lr=0.1), lambda out, _: out.sum()
    )
    with bind(evaluator, model) as binding:
        whole = binding.collect("", keep=4, source="grad_output")
        first = binding.collect("fc1", keep=4, source="grad_output")
        binding.train()
    assert torch.equal(whole.value["twice"], torch.ones(4, 2))
    assert whole.value["given"] is None
    assert whole.value["pair"][0] is None
    assert torch.equal(whole.value["pair"][1], torch.ones(4, 2))
    assert sorted(float(value[0, 0]) for value in first.values()) == [2.0, 3.0]


def test_collecting_gradients_keeps_no_graph_alive():
    with bound() as binding:
        outputs = []
        binding.forward_hook("fc2", lambda _, __, out: outputs.append(weakref.ref(out)))
        binding.collect("fc2", keep=1, source="grad_output")
        binding.train(2)
        gc.collect()
        assert len(outputs) == 2
        assert not any(ref() is not None for ref in outputs)


def test_collected_values_are_copies_without_history():
    """An operation in place that follows does not change them, and no graph lives on in them."""

    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.act = nn.Linear(2, 1), nn.ReLU(inplace=True)

        def forward(self, x):
            return self.act(self.fc1(x))

    torch.manual_seed(0)
    model = InPlace()
    with bound(model) as binding:
        kept = binding.collect("fc1", keep=1)
        state = binding.collect("fc1", reduce=lambda state, value: value)
        model(BATCHES[0])
        expected = nn.functional.linear(BATCHES[0], model.fc1.weight, model.fc1.bias)
        assert (expected < 0).any()
        assert torch.equal(kept.value, expected)
        assert torch.equal(state.value, expected)
        assert not kept.value.requires_grad


def test_collections_hold_no_more_than_they_keep():
    """Of 20 values all but the last two are freed."""
    alive = []

    def loop(model, optimizers, criterion):
        for x in BATCHES:
            out = model(x)
            alive.append(weakref.ref(out))

    with bound(training_func=loop) as binding:
        collection = binding.collect("", keep=2)
        refs = []
        binding.forward_hook("", lambda *_: refs.append(weakref.ref(collection.value)))
        binding.train()
        gc.collect()
        assert sum(ref() is not None for ref in refs) == 2
        assert not any(ref() is not None for ref in alive)


def test_containers_are_kept_as_what_they_are():
    from transformers.modeling_outputs import BaseModelOutput

    Pair = collections.namedtuple("Pair", "first second")
    given = [
        (torch.ones(1, requires_grad=True) * 2, "text"),
        {"a": torch.ones(1, requires_grad=True) * 2},
        Pair(torch.ones(1, requires_grad=True) * 2, None),
        BaseModelOutput(last_hidden_state=torch.ones(1, requires_grad=True) * 2),
    ]

    class Giving(nn.Module):
        def forward(self, x):
            return given[x]

    model = nn.Sequential(nn.Linear(1, 1), Giving())
    with bound(model) as binding:
        collection = binding.collect("1", keep=4)
        for number in range(4):
            model[1](number)
    assert [type(value) for value in collection.values()] == [type(value) for value in given]
    first, second, third, fourth = collection.values()
    for tensor in (first[0], second["a"], third.first, fourth.last_hidden_state):
        assert tensor == 2
        assert not tensor.requires_grad


def test_means_of_half_precision_are_kept_in_single():
    """A running mean of 4,096 ones and one large value would stall in bfloat16."""
    model = nn.Sequential(nn.Linear(1, 1), nn.Identity())
    with bound(model) as binding:
        collection = binding.collect("1", reduce="mean")
        for number in range(1000):
            model[1](torch.full((1,), float(number), dtype=torch.bfloat16))
        values = torch.arange(1000.0).bfloat16().float()
        torch.testing.assert_close(collection.value, values.mean().view(1))


def test_a_mean_of_different_shapes_is_refused():
    with bound() as binding:
        binding.collect("fc1", reduce="mean")
        binding.model(BATCHES[0])
        with pytest.raises(TrainingError, match="one shape"):
            binding.model(BATCHES[0][:1])


@pytest.mark.parametrize(
    "options",
    [{}, {"keep": 1, "reduce": "mean"}, {"keep": 0}, {"keep": True}, {"keep": 1.5}, {"reduce": "sum"}]
    + [{"keep": 1, "source": "gradient"}],
)
def test_a_collection_without_a_bound_is_refused_and_leaves_no_hook(options):
    with bound() as binding, assert_pristine(binding.model), pytest.raises(TrainingError):
        binding.collect("fc1", **options)


def test_hooks_see_and_may_replace_what_passes():
    with bound() as binding:
        gradients = []
        binding.model.eval()
        plain = binding.model(BATCHES[0])
        with binding.forward_hook("fc2", lambda module, inputs, output: output + 1):
            assert torch.equal(binding.model(BATCHES[0]), plain + 1)
        assert torch.equal(binding.model(BATCHES[0]), plain)
        with (
            binding.gradient_hook("fc2.bias", lambda gradient: gradient * 0),
            binding.backward_hook("fc2", lambda module, below, above: gradients.append(above[0])),
        ):
            binding.model(BATCHES[0]).sum().backward()
        assert torch.equal(gradients[0], torch.ones(4, 1))
        assert binding.model.fc2.bias.grad == 0
        binding.model.zero_grad()
        binding.model(BATCHES[0]).sum().backward()
        assert binding.model.fc2.bias.grad == 4
        assert len(gradients) == 1


def test_hooks_revert_in_any_order_and_leave_no_trace():
    """Also not of the kind of backward hook that torch remembers: the other kind works afterwards."""
    with bound() as binding, assert_pristine(binding.model):
        handles = [
            binding.backward_hook("fc2", lambda *_: None),
            binding.forward_hook("fc2", lambda *_: None),
            binding.collect("fc2", keep=1, source="grad_output"),
            binding.gradient_hook("fc2.weight", lambda _: None),
        ]
        for handle in (handles[1], handles[0], handles[3], handles[2]):
            handle.revert()
    binding.model.fc2.register_backward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda b: b.forward_hook("fc3", print), "no module 'fc3'"),
        (lambda b: b.gradient_hook("fc1.wieght", print), "did you mean 'fc1.weight'"),
        (lambda b: b.collect("wrong", keep=1), "no module 'wrong'; it has 'fc1'"),
    ],
)
def test_a_wrong_name_is_refused_with_a_near_one(call, text):
    with bound() as binding, pytest.raises(BindError, match=text):
        call(binding)


def test_what_is_no_hook_and_a_frozen_parameter_are_refused():
    with bound() as binding:
        for call in (binding.forward_hook, binding.backward_hook):
            with pytest.raises(TrainingError, match="a hook is a function"):
                call("fc1", 3)
        binding.model.fc1.weight.requires_grad_(False)
        with pytest.raises(TrainingError, match="frozen"):
            binding.gradient_hook("fc1.weight", print)


def test_names_are_found_in_wrappers_and_under_each_name_of_a_shared_module():
    wrapped = nn.DataParallel(net())
    with bound(wrapped) as binding:
        collection = binding.collect("fc1", keep=1)
        binding.gradient_hook("fc1.weight", lambda _: None)
        wrapped.module(BATCHES[0])
        assert collection.count == 1
    shared = nn.ModuleDict({"a": nn.Linear(2, 1)})
    shared["b"] = shared["a"]
    with bound(shared) as binding:
        collection = binding.collect("b", keep=1)
        shared["a"](BATCHES[0])
        assert collection.count == 1


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_of_a_bound_model_work_on_their_own_weights(how):
    """They train and save without touching the original; no patch, hook or task goes with them."""
    with bound() as binding:
        model = binding.model
        collection = binding.collect("fc1", keep=9)
        binding.collect("fc2", keep=1, source="grad_output")
        binding.forward_hook("fc2", lambda module, inputs, output: output * 0)
        binding.gradient_hook("fc1.weight", lambda gradient: gradient * 0)
        binding.patch_loss(lambda loss: loss * 0)
        binding.after_step(lambda: model.fc1.weight.data.zero_())
        copies = []

        def copy_it():
            data = pickle.dumps(model) if how == "pickle" else None
            copies.append(copy.deepcopy(model) if data is None else pickle.loads(data))

        binding.after_step(copy_it)
        binding.train(max_steps=1)
        copied = copies[0]
        before = copy.deepcopy(model.state_dict())
        assert not any(a is b for a in copied.parameters() for b in model.parameters())
        optimizer = torch.optim.SGD(copied.parameters(), lr=0.1)
        train(copied, optimizer, mse, max_steps=3)
        assert collection.count == 1
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
        assert not torch.equal(copied.fc1.weight, model.fc1.weight)


def test_a_pickled_bound_model_loads_without_this_library():
    """What is left of a hook in it is of the standard library."""
    import pickletools

    model = nn.Sequential(nn.Linear(2, 1))
    with bound(model) as binding:
        binding.forward_hook("0", lambda *_: None)
        names = " ".join(str(argument) for _, argument, _ in pickletools.genops(pickle.dumps(model)))
    assert "rebind" not in names


def test_compiled_models_notice_hooks_that_come_and_go_later():
    """torch.compile does not look at hooks again by itself; both ways of compiling."""
    for wrap in (True, False):
        model = net()
        compiled = torch.compile(model, backend="eager") if wrap else model
        if not wrap:
            model.compile(backend="eager")
        with bound(compiled) as binding:
            binding.train(2)
            collection = binding.collect("fc1", keep=9)
            seen = []
            binding.before_step(lambda seen=seen: seen.append(1))
            binding.train(3)
            assert collection.count == 3
            collection.revert()
            binding.train(2)
            assert collection.count == 3
            assert len(seen) == 5
            assert model.norm.num_batches_tracked == 7
