"""`rebind.testing` itself: what it needs, and when it is loaded."""

import subprocess
import sys
import textwrap

import pytest
import torch

from rebind.testing import Generated, assert_pristine, renames
from rebind.testing.generated import Plan


def in_a_new_process(code):
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


def test_hypothesis_is_loaded_with_the_first_strategy_and_not_before():
    """Importing rebind, rebind.testing and its checks leaves Hypothesis alone."""
    told = in_a_new_process(
        """
        import sys
        import rebind, rebind.testing
        rebind.testing.assert_pristine, rebind.testing.assert_reinitialises_exactly
        print("hypothesis" in sys.modules)
        rebind.testing.models
        print("hypothesis" in sys.modules)
        """
    )
    assert told == ["False", "True"]


def test_without_hypothesis_the_error_names_the_extra():
    """The message of a strategy that cannot be loaded says what to install."""
    told = in_a_new_process(
        """
        import sys
        sys.modules["hypothesis"] = None
        import rebind.testing
        rebind.testing.assert_pristine
        try:
            rebind.testing.evaluators
        except ImportError as error:
            print("pip install 'rebind[testing]'" in str(error))
        """
    )
    assert told == ["True"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.eval(), "training"),
        (lambda m: m[0].register_forward_hook(print), "_forward_hooks"),
        (lambda m: setattr(m[0], "forward", print), "forward"),
        (lambda m: m[0].weight.requires_grad_(False), "requires_grad"),
        (lambda m: m[0].weight.register_hook(print), "_backward_hooks"),
        (lambda m: setattr(m[0].weight, "grad", torch.ones(1, 1)), "grad"),
        (lambda m: setattr(m[0], "weight", torch.nn.Parameter(torch.ones(1, 1))), "_parameters"),
        (lambda m: m.append(torch.nn.Identity()), "_modules"),
        (lambda m: m[0].register_buffer("more", torch.ones(1)), "_buffers"),
        (lambda m: setattr(m[0], "note", 1), "note"),
        (
            lambda m: torch.nn.utils.parametrize.register_parametrization(m[0], "weight", torch.nn.Tanh()),
            "class",
        ),
    ],
)
def test_a_model_that_was_changed_is_not_pristine(change, told):
    """Every kind of change that is left behind is found, and named."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    with pytest.raises(AssertionError, match=told), assert_pristine(model):
        change(model)


def test_new_weights_are_pristine():
    """Training changes values, which is what it is for."""
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    with assert_pristine(model):
        with torch.no_grad():
            model[0].weight.add_(1)
        model(torch.ones(2, 1))


def test_the_error_of_the_block_is_the_cause():
    """A block that raises and leaves something behind is told both."""
    model = torch.nn.Linear(1, 1)

    def leave_it_changed():
        with assert_pristine(model):
            model.eval()
            raise KeyError("first")

    with pytest.raises(AssertionError) as caught:
        leave_it_changed()
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_generated_model_runs_in_every_width():
    """What `models` draws is a real model: batches go in and come out."""
    plan = Plan(
        "",
        "block",
        (
            Plan("a", "linear"),
            Plan("b", "block", (Plan("a", "plain", tied=True), Plan("c", "norm", frozen=True))),
        ),
    )
    for width in (1, 4):
        model = Generated(plan, width)
        assert model(torch.ones(2, width)).shape == (2, width)
        assert model.a.weight is model.b.a.weight
        assert not model.b.c.weight.requires_grad
    assert [name for name, _ in model.similar(names={"b": "new"}).named_modules()] == [
        "",
        "a",
        "new",
        "new.a",
        "new.c",
    ]
    assert renames(model) is not None


def test_a_portrait_is_the_same_before_and_after_torch_wraps_its_own_functions():
    """`torch.compile` wraps `step` of some optimizer classes, in the process that compiles."""
    in_a_new_process("""
import torch
from rebind.testing.portraits import portrait_of

def portrait():
    model = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(model.weight), torch.nn.init.ones_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters())
    return portrait_of(model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1))

before, step = portrait(), torch.optim.LBFGS.step
torch.compile(torch.nn.Linear(2, 2), backend="eager")(torch.ones(1, 2))
assert torch.optim.LBFGS.step is not step
assert portrait() == before
    """)
