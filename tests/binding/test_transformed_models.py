"""An evaluator of the original model, on every way in which libraries transform a model."""

from __future__ import annotations

import pytest
import torch
from binding_material import RECORDED, Net, assert_binds_like_by_hand, net, record, shipped, tensors
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from rebind import BindError, MissingParametersError, bind


def named(**changed):
    """Where the recorded parameters are: as they were, but for those whose module is given."""
    places = {name: (name,) for name in RECORDED}
    places.update({f"{key.replace('_w', '.weight')}": tuple(new) for key, new in changed.items()})
    return places


def below(prefix, inner=lambda name: name):
    return {name: (prefix + inner(name),) for name in RECORDED}


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def with_checkpointing(model):
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model.fc1 = checkpoint_wrapper(model.fc1)
    return model


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def parametrized(model):
    parametrize.register_parametrization(model.fc1, "weight", Doubled())
    return model


def orthogonal(model):
    parametrizations.orthogonal(model.fc1)
    return model


def new_spectral_norm(model):
    parametrizations.spectral_norm(model.fc1)
    return model


def old_spectral_norm(model):
    nn.utils.spectral_norm(model.fc1)
    return model


def new_weight_norm(model):
    parametrizations.weight_norm(model.fc1)
    return model


def old_weight_norm(model):
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(model.fc1)
    return model


def pruned(model):
    prune.l1_unstructured(model.fc1, "weight", 0.5)
    return model


def averaged(model):
    return torch.optim.swa_utils.AveragedModel(model)


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def wrapped_inside(model):
    model.fc1 = Wrapper(model.fc1)
    return model


def assigned(model):
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.to("meta")
    model.load_state_dict(state, assign=True)
    return model


def copied(model):
    import copy

    return copy.deepcopy(model)


def torch_pruned(model):
    pruning = pytest.importorskip("torch_pruning")
    pruning.pruner.MagnitudePruner(
        model,
        torch.ones(2, 4),
        pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[model.fc2],
    ).step()
    return model


def frozen(model):
    model.fc1.requires_grad_(False)
    return model


def compiled_and_wrapped(model):
    return nn.DataParallel(compiled(model), device_ids=[])


def wrapped_and_compiled(model):
    return compiled(nn.DataParallel(model))


def low_rank(**options):
    def apply(model):
        peft = pytest.importorskip("peft")
        return peft.get_peft_model(model, peft.LoraConfig(target_modules=["fc1"], r=2, **options))

    return apply


_PEFT = "base_model.model."
_PEFT_NAMES = {
    **below(_PEFT),
    **{f"fc1.{leaf}": (f"{_PEFT}fc1.base_layer.{leaf}",) for leaf in ("weight", "bias")},
}
_ORIGINAL = named(fc1_w=["fc1.parametrizations.weight.original"])
TRANSFORMS = {
    "nothing": (lambda model: model, named()),
    "deepcopy": (copied, named()),
    "load_state_dict(assign=True)": (assigned, named()),
    "frozen": (frozen, named()),
    "torch_pruning": (torch_pruned, named()),
    "DataParallel": (nn.DataParallel, below("module.")),
    "AveragedModel": (averaged, below("module.")),
    "torch.compile": (compiled, below("_orig_mod.")),
    "m.compile": (compiled_in_place, named()),
    "DataParallel of torch.compile": (compiled_and_wrapped, below("module._orig_mod.")),
    "torch.compile of DataParallel": (wrapped_and_compiled, below("_orig_mod.module.")),
    "checkpoint_wrapper": (
        with_checkpointing,
        {**named(), **{f"fc1.{n}": (f"fc1._checkpoint_wrapped_module.{n}",) for n in ("weight", "bias")}},
    ),
    "parametrize": (parametrized, _ORIGINAL),
    "orthogonal": (orthogonal, _ORIGINAL),
    "spectral_norm": (new_spectral_norm, _ORIGINAL),
    "old spectral_norm": (old_spectral_norm, named(fc1_w=["fc1.weight_orig"])),
    "weight_norm": (
        new_weight_norm,
        named(fc1_w=[f"fc1.parametrizations.weight.original{i}" for i in (0, 1)]),
    ),
    "old weight_norm": (old_weight_norm, named(fc1_w=["fc1.weight_g", "fc1.weight_v"])),
    "prune": (pruned, named(fc1_w=["fc1.weight_orig"])),
    "wrapper inside": (
        wrapped_inside,
        {**named(), **{f"fc1.{n}": (f"fc1.module.{n}",) for n in ("weight", "bias")}},
    ),
    "LoRA": (low_rank(bias="all"), _PEFT_NAMES),
    "LoRA with modules_to_save": (
        low_rank(modules_to_save=["fc2"]),
        {
            **_PEFT_NAMES,
            **{f"fc2.{n}": (f"{_PEFT}fc2.modules_to_save.default.{n}",) for n in ("weight", "bias")},
        },
    ),
}


@pytest.mark.parametrize("style", ["parameters", "groups"])
@pytest.mark.parametrize("alive", [True, False], ids=["in process", "shipped"])
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.filterwarnings("ignore::FutureWarning:torch", "ignore::DeprecationWarning:torch")
def test_a_transformed_model_trains_as_if_constructed_by_hand(name, alive, style):
    """Groups, order, options and 10 steps equal direct construction; nothing else trains."""
    transform, expected = TRANSFORMS[name]
    assert_binds_like_by_hand(transform, expected, style=style, alive=alive)


class Student(nn.Module):
    """A distillation wrapper: the student's names are the model's own, the teacher stands beside them."""

    def __init__(self, student, teacher):
        super().__init__()
        self.fc1, self.bn, self.fc2 = student.fc1, student.bn, student.fc2
        self._teacher_model = teacher

    forward = Net.forward


@pytest.mark.parametrize("teacher_is", ["another model", "the recorded model"])
def test_a_teacher_is_never_optimized(teacher_is):
    """The student's parameters train, also where the teacher is the model that was recorded."""
    original = net()
    evaluator = record(original)
    student, teacher = (original, net(1)) if teacher_is == "another model" else (net(1), original)
    model = Student(student, teacher.requires_grad_(False))
    with bind(evaluator, model) as binding:
        trained = {id(p) for group in binding.optimizers[0].param_groups for p in group["params"]}
        assert trained == {id(p) for p in student.parameters()}
        assert binding.report.matched == RECORDED
        assert set(binding.report.new) == {f"_teacher_model.{name}" for name in RECORDED}
        before = {name: tensor.clone() for name, tensor in tensors(teacher).items()}
        binding.train(max_steps=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(teacher).items())


class Outer(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.body(x))


def test_parameters_below_an_arbitrary_module_raise_with_the_rename_to_write():
    """Names alone do not tell that `body.` is a wrapper: nothing is guessed, the message has the answer."""
    evaluator = shipped(record(net()))
    with pytest.raises(MissingParametersError) as caught:
        bind(evaluator, Outer(net()))
    assert "did you mean 'body.fc1.weight'?" in str(caught.value)
    assert "rename=[(r'^', 'body.')]" in str(caught.value)


@pytest.mark.parametrize(
    "rename",
    [
        {name: f"body.{name}" for name in RECORDED},
        "body.{}".format,
        [(r"^", "body.")],
        [(r"^nothing", "x"), (r"^(fc|bn)", r"body.\1"), (r"^", "never.")],
    ],
    ids=["mapping", "function", "pair", "first pair that is found"],
)
@pytest.mark.parametrize("alive", [True, False], ids=["in process", "shipped"])
def test_a_rename_tells_where_parameters_are(rename, alive):
    """A mapping, a function and regex pairs mean the same; the report tells what became of each name."""
    assert_binds_like_by_hand(Outer, below("body."), style="groups", alive=alive, rename=rename)
    with bind(shipped(record(net())), Outer(net()), rename=rename) as binding:
        assert binding.report.renamed == {name: f"body.{name}" for name in RECORDED}


def test_the_recorded_objects_are_found_wherever_they_went():
    """In the same process no rename is needed: the very Parameter objects tell."""
    assert_binds_like_by_hand(Outer, below("body."), style="parameters", alive=True)


def test_the_recorded_objects_win_over_new_ones_that_took_their_names():
    """A layer put before others shifts all names; the objects are still the same."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    evaluator = record(model, style="parameters", names=())
    shifted = nn.Sequential(nn.Linear(4, 4), *model)
    with bind(evaluator, shifted) as binding:
        assert binding.report.matched == ("1.weight", "1.bias", "2.weight", "2.bias")
        assert binding.report.new == ("0.weight", "0.bias")


def test_a_frozen_original_beside_a_trainable_copy_is_not_taken_for_it():
    """A teacher found by identity alone is refused rather than optimized to no effect."""
    original = net()
    evaluator = record(original)
    pair = nn.ModuleDict({"student": net(1), "teacher": original.requires_grad_(False)})
    with pytest.raises(MissingParametersError, match=r"did you mean 'student\.fc1\.weight'"):
        bind(evaluator, pair)


@pytest.mark.parametrize(
    ("rename", "error", "text"),
    [
        ({"fc1.wieght": "fc1.wight"}, BindError, "'fc1.wieght' was not recorded, did you mean 'fc1.weight'"),
        ({"fc1.weight": "fc1.wieght"}, MissingParametersError, "no parameter 'fc1.wieght', did you mean"),
        ({"fc1.weight": "fc2.weight"}, BindError, "would both be 'fc2.weight'"),
        ([("(", "x")], BindError, "rename must be"),
        (42, BindError, "rename must be"),
    ],
)
def test_a_rename_that_leads_nowhere_is_refused(rename, error, text):
    """Each mistake has its own message, with a near name."""
    with pytest.raises(error) as caught:
        bind(record(net()), net(1), rename=rename)
    assert text in str(caught.value)


def without_bn(model):
    model.bn = nn.Identity()
    return model


def test_a_missing_parameter_raises_and_suggests_a_near_one():
    """Every missing name is listed, with the nearest one that the model has."""
    model = net()
    model.fc3 = model.fc2
    del model.fc2
    with pytest.raises(MissingParametersError) as caught:
        bind(shipped(record(net())), model)
    assert "2 of 6 recorded parameters are not in the model" in str(caught.value)
    assert "fc2.weight, did you mean 'fc3.weight'?" in str(caught.value)


def test_missing_parameters_can_be_left_out():
    """`missing="ignore"` trains the others exactly, and the report tells."""
    evaluator = shipped(record(net()))
    model, oracle = without_bn(net()), without_bn(net())
    with bind(evaluator, model, missing="ignore") as binding:
        assert binding.report.missing == ("bn.weight", "bn.bias")
        assert "2 missing: bn.weight, bn.bias" in str(binding.report)
        binding.train(max_steps=4)
    from binding_material import assert_equal_models, by_hand, run

    optimizer, scheduler = by_hand(oracle, {n: (n,) for n in RECORDED if not n.startswith("bn")})
    run(oracle, [optimizer], [scheduler], nn.functional.mse_loss, 4)
    assert_equal_models(model, oracle)


@pytest.mark.parametrize("missing", ["raise", "ignore"])
def test_no_optimizer_ends_up_empty(missing):
    """A model with none of the parameters is refused, also where missing ones may be left out."""
    with pytest.raises(MissingParametersError, match="None was found"):
        bind(shipped(record(net())), nn.Conv2d(1, 1, 1), missing=missing)


def test_one_of_two_optimizers_left_empty_is_refused():
    """What `missing="ignore"` leaves must give each optimizer something to train."""
    from rebind import TorchEvaluator, trace

    model = net()
    first = trace(torch.optim.SGD)(model.bn.parameters(), lr=0.1)
    second = trace(torch.optim.SGD)(model.fc1.parameters(), lr=0.1)

    def fit(model, optimizers, criterion): ...

    evaluator = TorchEvaluator(fit, [first, second], nn.functional.mse_loss, model=model)
    with pytest.raises(BindError, match=r"optimizer 0 \(SGD\) would have no parameters"):
        bind(evaluator, without_bn(net()), missing="ignore")


def test_an_optimizer_of_frozen_parameters_only_is_told_of(caplog):
    """LoRA freezes all that was recorded: direct construction trains nothing either, but not in silence."""
    with bind(record(net()), net(1).requires_grad_(False)) as binding:
        assert binding.report.frozen == RECORDED
    assert "will change nothing: all of its parameters are frozen" in caplog.text


def test_a_parameter_that_only_looks_like_half_of_another_is_not_taken_for_it():
    """`proj_v` alone is a parameter of its own; `proj` is missing."""
    recorded, other = nn.Module(), nn.Module()
    recorded.proj = nn.Parameter(torch.ones(2))
    other.proj_v = nn.Parameter(torch.ones(2))
    for first, second in ((recorded, other), (other, recorded)):
        with pytest.raises(MissingParametersError):
            bind(shipped(record(first)), second)


@pytest.mark.parametrize("alive", [True, False], ids=["in process", "shipped"])
@pytest.mark.filterwarnings("ignore::FutureWarning:torch", "ignore::DeprecationWarning:torch")
def test_an_evaluator_of_a_transformed_model_serves_the_original_one(alive):
    """Names are stripped on both sides: recorded on a wrapped and normed model, bound to the plain one."""
    recorded = nn.DataParallel(new_weight_norm(net()))
    evaluator = record(recorded)
    evaluator = evaluator if alive else shipped(evaluator)
    model = net()
    with bind(evaluator, model) as binding:
        own = [id(p) for p in binding.optimizers[0].param_groups[0]["params"]]
        assert own == [id(p) for p in model.parameters()]
    old = old_weight_norm(net())
    with bind(evaluator, old) as binding:
        assert binding.report.renamed["module.fc1.parametrizations.weight.original1"] == "fc1.weight_v"


class Tied(nn.Module):
    def __init__(self, *, tied):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(4, 4, bias=False)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4, bias=False)
        self.out = nn.Linear(4, 2)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.head(self.body(self.embed(x)).relu()))


@pytest.mark.parametrize("alive", [True, False], ids=["in process", "shipped"])
@pytest.mark.parametrize("style", ["parameters", "named"])
@pytest.mark.parametrize("before", [True, False], ids=["recorded tied", "recorded untied"])
@pytest.mark.parametrize("after", [True, False], ids=["bound tied", "bound untied"])
def test_tied_weights_are_optimized_once_and_untied_ones_both(before, after, style, alive):
    """The optimizer equals `SGD(model.parameters())` on the model as it is, whatever was tied before."""
    original = Tied(tied=before)
    evaluator = record(original, style)
    evaluator = evaluator if alive else shipped(evaluator)
    model = Tied(tied=after)
    with bind(evaluator, model) as binding:
        group = binding.optimizers[0].param_groups[0]
        assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
        if style == "named":
            assert group["param_names"] == [name for name, _ in model.named_parameters()]
        binding.train(max_steps=2)


def quantizable():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))


_FUSED = {"1.weight": "0.bn.weight", "1.bias": "0.bn.bias"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("alive", [True, False], ids=["in process", "shipped"])
def test_a_model_that_was_fused_and_prepared_for_quantization_is_bound(alive):
    """Fusing moves the batch norm into the convolution; where the objects do not tell, a rename does."""
    quantization = pytest.importorskip("torch.ao.quantization")
    original = quantizable().train()
    evaluator = record(original)
    evaluator = evaluator if alive else shipped(evaluator)
    model = original if alive else quantizable().train()
    quantization.fuse_modules_qat(model, [["0", "1", "2"]], inplace=True)
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    quantization.prepare_qat(model, inplace=True)
    if not alive:
        with pytest.raises(MissingParametersError, match="2 of 6"):
            bind(evaluator, model)
    with bind(evaluator, model, rename=_FUSED) as binding:
        own = binding.optimizers[0].param_groups[0]["params"]
        assert [id(p) for p in own] == [id(p) for p in model.parameters()]
        assert binding.report.renamed == _FUSED


def test_a_mapping_may_speak_of_parameters_that_no_optimizer_has():
    """A mapping for the whole model serves an optimizer that trains a part of it."""
    evaluator = record(net(), style="groups", names=("fc1.weight", "fc1.bias"))
    whole = {name: name for name, _ in net().named_parameters()}
    with bind(evaluator, net(1), rename=whole) as binding:
        assert set(binding.report.matched) == {"fc1.weight", "fc1.bias"}
