"""That an algorithm did its work, told without comparing with NNI's own evaluator."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from nni_algorithms import SPARSITY, STEPS
from nni_material import TEST, Net, native_evaluator

import rebind


def is_masked(compressor, masks, model):
    """Half of the weights are gone."""
    shares = [float(targets["weight"].mean()) for targets in masks.values()]
    assert shares == pytest.approx([1 - SPARSITY] * len(shares), abs=0.05)
    assert shares


def has_left(part, value):
    """What NNI registered as parameters under a name has been trained away from its first value."""

    def check(compressor, result, model):
        trained = [parameter for name, parameter in model.named_parameters() if part in name]
        assert trained
        assert all((parameter != value).any() for parameter in trained)

    return check


def is_calibrated(compressor, calibration, model):
    """Each target has a scale."""
    scales = [float(target["scale"]) for targets in calibration.values() for target in targets.values()]
    assert scales
    assert all(scale > 0 for scale in scales)


def is_binary(compressor, calibration, model):
    """The weights with which a layer computes are 1 or -1."""
    assert set(model.conv2.weight.unique().tolist()) == {-1.0, 1.0}


def maps_features(compressor, result, model):
    """The layer between student and teacher, the first that was made after the seed was set, was trained."""
    torch.manual_seed(1)
    assert not torch.equal(
        compressor.trans_linears["hidden"]["_output_0"].weight, torch.nn.Linear(32, 64).weight
    )


def follows_its_teacher(compressor, result, model):
    """It is nearer to the teacher than a model that was trained as long without one."""
    alone, teacher = Net(), compressor.teacher_model
    with rebind.bind(native_evaluator(alone), alone) as binding:
        binding.train(max_steps=STEPS)
    assert divergence(model, teacher) < 0.9 * divergence(alone, teacher)


@torch.no_grad()
def divergence(model, teacher):
    """How far the model's distributions over the classes are from the teacher's, on the test images."""
    images, _ = TEST.tensors
    wanted = teacher(images).softmax(1)
    return F.kl_div(model.eval()(images).log_softmax(1), wanted, reduction="batchmean").item()


WITNESSES = {
    "LevelPruner": [is_masked],
    "L1NormPruner": [is_masked],
    "L2NormPruner": [is_masked],
    "FPGMPruner": [is_masked],
    "TaylorPruner": [is_masked],
    "SlimPruner": [is_masked, has_left("slim", 1)],
    "MovementPruner": [is_masked, has_left("mvp", 0)],
    "LinearPruner": [is_masked],
    "AGPPruner": [is_masked],
    "QATQuantizer": [is_calibrated],
    "QATQuantizer, folding": [is_calibrated],
    "LsqQuantizer": [has_left("_scale", 0.01)],
    "LsqPlusQuantizer": [has_left("_scale", 0.01), has_left("_zero_point", 127)],
    "DoReFaQuantizer": [is_calibrated],
    "BNNQuantizer": [is_binary],
    "PtqQuantizer": [is_calibrated],
    "DynamicLayerwiseDistiller": [follows_its_teacher],
    "Adaptive1dLayerwiseDistiller": [maps_features],
}
