"""What a training tells while it runs, and the bar on a terminal."""

import copy
import os
import pickle
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from patch_material import BATCHES, TARGETS, bound, mse, train_on

from rebind import BindError


def test_events_tell_begin_steps_with_their_losses_and_the_end():
    """The losses are those with the patches, and the steps go on over several trainings."""
    events, losses = [], []
    with bound(training_func=train_on) as binding:
        binding.patch_loss(lambda loss: (losses.append(2 * loss.item()), 2 * loss)[1])
        handle = binding.on_event(events.append)
        binding.train(max_steps=3)
        assert [event.kind for event in events] == ["begin", "step", "step", "step", "end"]
        assert [event.step for event in events] == [0, 1, 2, 3, 3]
        assert [event.loss for event in events] == [None, *losses[:3], losses[2]]
        assert {event.max_steps for event in events} == {3}
        assert events[-1].seconds >= events[1].seconds >= 0
        binding.train(max_steps=1)
        assert [event.step for event in events[5:]] == [3, 4, 4]
        assert [event.loss for event in events[5:]] == [None, losses[3], losses[3]]
        handle.revert()
        binding.train(max_steps=1)
        assert len(events) == 8
    with pytest.raises(BindError, match="closed"):
        binding.on_event(print)


def test_a_listener_that_joins_during_a_training_hears_the_losses_from_then_on():
    """And one that leaves hears no more."""
    losses, events = [], []
    with bound(training_func=train_on) as binding:
        binding.patch_loss(lambda loss: (losses.append(loss.item()), loss)[1])

        def join_and_leave():
            if binding.steps == 1:
                handles.append(binding.on_event(events.append))
            elif binding.steps == 3:
                handles.pop().revert()

        handles = []
        binding.after_step(join_and_leave)
        binding.train(max_steps=4)
    assert [(event.kind, event.step, event.loss) for event in events] == [
        ("step", 2, losses[1]),
        ("step", 3, losses[2]),
    ]


def test_a_criterion_may_be_copied_while_somebody_listens_who_may_not():
    """The copy computes the same losses, and nobody hears of them."""
    lock, losses = threading.Lock(), []

    def loop(model, optimizers, criterion):
        copied = pickle.loads(pickle.dumps(copy.deepcopy(criterion)))
        output = model(BATCHES[0])
        loss = criterion(output, TARGETS[0])
        assert torch.equal(copied(output + 1, TARGETS[0]), mse(output + 1, TARGETS[0]))
        loss.backward()
        optimizers.step()
        expected.append(loss.item())

    def listen(event):
        with lock:
            losses.append(event.loss)

    expected = []
    with bound(training_func=loop, criterion=torch.nn.MSELoss()) as binding:
        binding.on_event(listen)
        binding.train()
    assert losses == [None, *expected, *expected]


def test_the_end_is_told_after_an_exception_too():
    kinds = []
    with bound() as binding:
        binding.on_event(lambda event: kinds.append(event.kind))
        binding.after_step(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            binding.train(3)
    assert kinds == ["begin", "step", "end"]


@pytest.mark.parametrize("kind", ["begin", "step", "end"])
def test_an_exception_in_a_listener_comes_out_and_the_binding_goes_on(kind):
    with bound() as binding:
        handle = binding.on_event(lambda event: 1 / (event.kind != kind))
        with pytest.raises(ZeroDivisionError):
            binding.train(2)
        handle.revert()
        steps = binding.steps
        binding.train(2)
        assert binding.steps == steps + 2
        assert not binding.optimizers[0]._optimizer_step_pre_hooks


def test_a_criterion_that_returns_no_loss_has_none_to_tell():
    losses = []

    def loop(model, optimizers, criterion):
        criterion(model(BATCHES[0]), TARGETS[0])[1]["value"].backward()
        optimizers.step()

    with bound(training_func=loop, criterion=lambda out, y: ("text", {"value": mse(out, y)})) as binding:
        binding.on_event(lambda event: losses.append(event.loss))
        binding.train()
    assert losses == [None, None, None]


SCRIPT = """
import sys, time
sys.path.insert(0, {folder!r})
from patch_material import bound
with bound() as binding:
    binding.after_step(lambda: time.sleep(0.01))
    binding.train(max_steps=16, progress={progress})
"""


def on_a_terminal(progress):
    """Run a training on a pseudo-terminal, and give what it wrote there."""
    ours, theirs = pty.openpty()
    code = SCRIPT.format(folder=str(Path(__file__).parent), progress=progress)
    written = []

    def read():
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            written.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        check=False,
        timeout=120,
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    return done.returncode, b"".join(written).decode()


def test_a_training_shows_its_steps_and_its_loss_on_a_terminal():
    """Drawn over and over in place, up to the last step; the cursor is there again at the end."""
    code, text = on_a_terminal(progress=True)
    assert code == 0, text
    assert "16/16" in text
    assert "loss" in text
    assert text.rstrip().endswith("\x1b[?25h")


def test_a_short_training_shows_nothing_by_itself():
    assert on_a_terminal(progress=None) == (0, "")


def test_no_bar_is_drawn_where_there_is_no_terminal(capsys):
    with bound() as binding:
        binding.train(2)
        assert capsys.readouterr().err == ""
        binding.train(2, progress=True)
        assert "2/2" in capsys.readouterr().err
        assert torch.is_grad_enabled()
