"""`rebind run`: trials of the evaluator in a file, from the command line."""

from __future__ import annotations

import json

import pytest

MODELS = """
import torch

def small():
    return torch.nn.Linear(2, 1)

def deep():
    return torch.nn.Sequential(torch.nn.Linear(2, 1))
"""


@pytest.fixture(autouse=True)
def models(files, monkeypatch):
    """A user's own module, in the folder where the command is called."""
    (files / "models_of_mine.py").write_text(MODELS)
    monkeypatch.chdir(files)


def test_each_model_is_a_trial_in_worker_processes(rebind):
    """Named as given, trained within the limits, evaluated; the results in the order of the models."""
    ran = rebind(
        *("run", "signed", "--key-file", "key", "--workers", 2, "--max-steps", 5, "--json"),
        *("--model", "models_of_mine:small", "--model", "mine=cli_material:an_instance"),
    )
    assert (ran.code, ran.err) == (0, "")
    told = json.loads(ran.out)
    assert [result["name"] for result in told] == ["models_of_mine:small", "mine"]
    assert all(result["error"] is None and result["score"] <= 0 for result in told)


def test_a_failed_trial_is_told_and_costs_the_others_nothing(rebind):
    """Exit code 1, the table has both, and the reason is on standard error without a traceback."""
    arguments = ("run", "declared", "--allow", "cli_material", "--workers", 0, "--max-steps", 1)
    models = ("--model", "cli_material:small", "--model", "cli_material:broken")
    ran = rebind(*arguments, *models)
    assert ran.code == 1
    assert "parameters" in ran.out
    assert "cli_material:small" in ran.out
    assert "TrialFailedError" in ran.out
    assert ran.err.startswith("rebind: TrialFailedError: trial 'cli_material:broken' raised ")
    assert "this model cannot be made" in ran.err
    assert "Traceback" not in ran.err
    told = json.loads(rebind(*arguments, *models, "--json").out)
    assert told[0]["info"] == {"parameters": 3}
    assert told[1]["error"]["type"] == "TrialFailedError"
    assert "Traceback" in told[1]["error"]["cause"]


def test_the_same_seed_gives_the_same_score(rebind):
    """Whatever the number of workers; models of the same name are told apart."""
    arguments = ("run", "code", "--trusted", "--max-steps", 3, "--json", "--seed", 7)
    models = ("--model", "models_of_mine:small", "--model", "models_of_mine:small")
    scores = []
    for workers in (0, 1):
        told = json.loads(rebind(*arguments, *models, "--workers", workers).out)
        assert [result["name"] for result in told] == ["models_of_mine:small", "models_of_mine:small-2"]
        scores.append([result["score"] for result in told])
    assert scores[0] == scores[1]


def test_a_model_is_evaluated_only_where_that_is_the_task(rebind):
    """Its score is that of its weights as they are."""
    import cli_material

    ran = rebind(
        *("run", "code", "--trusted", "--task", "evaluate", "--workers", 0, "--json"),
        *("--model", "cli_material:an_instance"),
    )
    expected = cli_material.evaluate(cli_material.an_instance)[0]
    assert json.loads(ran.out)[0]["score"] == pytest.approx(expected)


def test_a_model_that_does_not_fit_is_told_by_its_missing_names(rebind):
    """`--missing ignore` would leave them out."""
    ran = rebind("run", "code", "--trusted", "--workers", 0, "--model", "models_of_mine:deep")
    assert ran.code == 1
    assert "weight" in ran.err


def test_code_that_nobody_vouches_for_is_not_run(rebind):
    """Pickled code wants a key or trust; declared import paths want their modules allowed."""
    for name in ("code", "signed"):
        ran = rebind("run", name, "--model", "cli_material:small")
        assert ran.code == 3
        assert "UntrustedPayloadError" in ran.err
    ran = rebind("run", "declared", "--model", "cli_material:small")
    assert ran.code == 3
    assert "allow=['cli_material']" in ran.err


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("nowhere", "MODULE:FACTORY"),
        ("no_such_module:small", "cannot be imported"),
        ("cli_material:no_such_model", "has no 'no_such_model'"),
        ("cli_material:no_model", "of type int"),
        ("cli_material:with_arguments", "functools.partial"),
    ],
)
def test_a_model_that_cannot_be_had_is_told(rebind, model, told):
    """Before any trial starts: exit code 4."""
    ran = rebind("run", "code", "--trusted", "--model", model)
    assert (ran.code, ran.out) == (4, "")
    assert told in ran.err
    assert model in ran.err
    assert ran.err.startswith("rebind: ")


def test_limits_that_do_not_fit_the_task_are_told(rebind):
    """Evaluating takes no steps."""
    ran = rebind(
        "run", "code", "--trusted", "--task", "evaluate", "--max-steps", 3, "--model", "cli_material:small"
    )
    assert ran.code == 4
    assert "max_steps" in ran.err
