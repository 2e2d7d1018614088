"""Weights after training through an evaluator are those of the user's own Trainer, to the bit."""

import pytest
import torch
from lightning_material import (
    FORMS,
    LENIENT,
    LIGHTNINGS,
    Bare,
    assert_same,
    by_own_trainer,
    evaluator_of,
    net,
)

from rebind import bind


@pytest.mark.parametrize("form", LIGHTNINGS)
def test_every_form_of_configure_optimizers_trains_as_the_users_own_trainer_does(form):
    model = net(form)
    with bind(evaluator_of(), model) as binding:
        torch.manual_seed(1)
        binding.train()
    assert_same(model, by_own_trainer(form))


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("none", "empty")])
def test_recorded_optimizers_train_a_module_that_has_none_of_its_own_likewise(form):
    """The specs are of one module; the one that is bound could not build optimizers at all."""
    evaluator = evaluator_of(model=net(form, seed=5))
    model = net(form, kind=Bare)
    with bind(evaluator, model) as binding:
        torch.manual_seed(1)
        binding.train()
    assert_same(model, by_own_trainer(LENIENT.get(form, form)))


@pytest.mark.parametrize("form", LENIENT)
def test_forms_that_lightning_refuses_mean_what_they_say(form):
    model = net(form)
    with bind(evaluator_of(), model) as binding:
        torch.manual_seed(1)
        binding.train()
    assert_same(model, by_own_trainer(LENIENT[form]))
