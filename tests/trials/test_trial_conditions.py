"""The settings of torch under which trials run: the caller's, in every process, and put back afterwards."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import trial_material as material
from hypothesis import given, settings
from hypothesis import strategies as st

import rebind
from rebind.runtime.trials.conditions import current_settings, trial_conditions

_PRECISIONS = [("", ["none", "ieee", "tf32"]), ("cuda.matmul", ["none", "ieee", "tf32"])]
_PRECISIONS += [(f"cudnn{op}", ["none", "ieee", "tf32"]) for op in ("", ".conv", ".rnn")]
_PRECISIONS += [(f"mkldnn{op}", ["none", "ieee", "tf32", "bf16"]) for op in ("", ".matmul", ".conv", ".rnn")]


def set_fp32_precision(backend, value):
    of = torch.backends
    for name in filter(None, backend.split(".")):
        of = getattr(of, name)
    of.fp32_precision = value


def set_cudnn(name, value):
    setattr(torch.backends.cudnn, name, value)


CHANGES = [
    *(partial(set_fp32_precision, backend, value) for backend, values in _PRECISIONS for value in values),
    *(partial(torch.set_float32_matmul_precision, value) for value in ("highest", "high", "medium")),
    *(partial(set_cudnn, n, v) for n in ("allow_tf32", "benchmark", "deterministic") for v in (False, True)),
    *(partial(torch.set_default_dtype, dtype) for dtype in (torch.float32, torch.float64)),
    *(partial(torch.use_deterministic_algorithms, value) for value in (False, True)),
    partial(torch.use_deterministic_algorithms, mode=True, warn_only=True),
    *(partial(torch.set_default_device, device) for device in (None, "cpu", "meta")),
]
_SOME = st.lists(st.sampled_from(CHANGES), max_size=6)


def changed(*changes):
    """The settings that changes lead to; this process's own stay as they are."""
    with trial_conditions(torch.get_num_threads(), current_settings()):
        for change in changes:
            change()
        return current_settings()


def are(wanted):
    """Whether this process's settings are these. What torch refuses to tell may be anything."""
    now = current_settings()
    assert set(now) == set(wanted)
    return all(now[name] == value for name, value in wanted.items() if value is not None)


@settings(deadline=None, max_examples=300)
@given(here=_SOME, there=_SOME, by_trial=_SOME)
def test_whatever_is_set_is_taken_over_and_put_back(here, there, by_trial):
    """Also where old and new settings of precision are mixed, of which torch refuses to tell the old one."""
    own, wanted = current_settings(), changed(*there)
    with trial_conditions(torch.get_num_threads(), changed(*here)):
        before = current_settings()
        with trial_conditions(torch.get_num_threads(), wanted):
            assert are(wanted)
            for change in by_trial:
                change()
        assert are(before)
    assert are(own)


@pytest.mark.parametrize("pool", [rebind.SerialPool, partial(rebind.LocalPool, workers=1)])
def test_a_precision_that_is_set_here_counts_in_trials(pool):
    """By the settings that torch documents today, per backend."""
    trials = [rebind.Trial(model=material.Net, task=material.settings_of_torch)]
    with trial_conditions(torch.get_num_threads(), current_settings()):
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
        (result,) = rebind.run_trials(material.make_evaluator(), trials, pool())
        assert result.error is None
        assert result.value == current_settings()
