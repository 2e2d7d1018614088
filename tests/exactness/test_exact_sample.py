"""Reinitialised equals directly constructed: a sample of the table, and in the long run all of it."""

import collections
import os

import pytest
from exact_optimizers import OPTIMIZERS
from exact_run import TRANSPORTS, combinations
from exact_schedulers import FORMS
from exact_styles import STYLES
from exact_table import compare, report, sample, whole_table

# Here rebind has nothing but live objects to go by, and says so where they do not tell enough.
NOT_TRACED = {"untraced", "SequentialLR, parts not traced"}


def test_a_sample_of_the_table_is_equal_over_every_transport():
    """Whatever torch constructs, rebind constructs alike: here, from bytes, and in another process."""
    chosen = sample(168, seed=2026)
    assert {c.optimizer for c in chosen} == set(OPTIMIZERS)
    assert {c.style for c in chosen} == set(STYLES)
    assert {c.form for c in chosen} == set(FORMS)
    verdicts = compare(chosen, every_transport=True)
    assert [verdict for verdict in verdicts if verdict.outcome == "different"] == []
    refused = [verdict for verdict in verdicts if verdict.outcome == "refused"]
    assert {verdict.combination.form for verdict in refused} <= NOT_TRACED
    equal = collections.Counter(verdict.transport for verdict in verdicts if verdict.outcome == "equal")
    assert all(equal[transport] > 110 for transport in TRANSPORTS)


def test_the_report_counts_every_outcome():
    """What differs is told in the table, with its reason; nothing is left out of the sums."""
    verdicts = compare(sample(3, seed=1))
    broken = [verdict._replace(outcome="different", message="weights: a is not b") for verdict in verdicts]
    text = report([*verdicts, *broken])
    assert f"{len(broken)}\ndifferent" in text or f"{len(broken)} different" in text
    assert "weights: a is not b" in text


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_whole_table_is_equal():
    """Every legal combination of optimizer, parameters and schedulers equals direct construction."""
    verdicts = whole_table(workers=len(os.sched_getaffinity(0)))
    assert {verdict.combination for verdict in verdicts} == set(combinations())
    assert [verdict for verdict in verdicts if verdict.outcome == "different"] == []
    refused = [verdict for verdict in verdicts if verdict.outcome == "refused"]
    assert {verdict.combination.form for verdict in refused} <= NOT_TRACED
    assert sum(verdict.outcome == "equal" for verdict in verdicts) >= 5000
