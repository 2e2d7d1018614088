"""Tensors keep what they are: dtype, shape, strides, shared memory, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rebind.serialization import inspect, pack, pack_file, unpack, unpack_file

KINDS = [
    kind
    for kind in {of for of in vars(torch).values() if isinstance(of, torch.dtype)}
    if not str(kind).startswith(("torch.q", "torch.bits", "torch.uint1", "torch.int1"))
    or kind is torch.uint16
]


def there_and_back(value):
    return unpack(pack(value, kind="test"), trusted=True, kind="test")


def bits(tensor):
    """The memory of a tensor's elements, for dtypes that know no `==`."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).tolist() if flat.numel() else []


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("kind", sorted(KINDS, key=str), ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (7,), (2, 3)], ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(kind, shape):
    """Whatever the elements mean, their bytes, dtype, shape and strides are the same."""
    size = torch.Size(shape).numel() * kind.itemsize
    memory = torch.randint(0, 2 if kind is torch.bool else 256, (size,), dtype=torch.uint8)
    tensor = torch.empty(0, dtype=kind)
    tensor.set_(memory.untyped_storage(), 0, shape)
    back = there_and_back(tensor)
    assert (back.dtype, back.shape, back.stride()) == (kind, tensor.shape, tensor.stride())
    raw = bytes(back.untyped_storage())[:size]
    assert raw == bytes(memory.untyped_storage())[:size]


VIEWS = {
    "transposed": lambda x: x.t(),
    "a row": lambda x: x[2],
    "a column": lambda x: x[:, 1],
    "every other": lambda x: x[::2, 1::2],
    "one element": lambda x: x[1, 1],
    "nothing": lambda x: x[2:2],
    "expanded": lambda x: x[0].expand(9, 6),
    "a diagonal": lambda x: x.diagonal(),
    "windows": lambda x: x.unfold(0, 2, 1),
    "other bits": lambda x: x.view(torch.int16),
    "complex": lambda x: torch.view_as_complex(x.view(5, 3, 2)),
    "conjugate": lambda x: torch.view_as_complex(x.view(5, 3, 2)).conj(),
    "negative": lambda x: torch.view_as_complex(x.view(5, 3, 2)).conj().imag,
}


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_a_view_comes_back_with_its_strides_and_on_the_memory_of_its_base(make):
    """Writing to the base shows in the view, as before."""
    base = torch.arange(30.0).view(5, 6)
    view = make(base)
    base_back, view_back = there_and_back((base, view))
    assert (view_back.shape, view_back.stride()) == (view.shape, view.stride())
    assert (view_back.is_conj(), view_back.is_neg()) == (view.is_conj(), view.is_neg())
    assert torch.equal(view_back, view)
    base.add_(100)
    base_back.add_(100)
    assert torch.equal(view_back, view)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8), st.integers(1, 4)), max_size=6))
@settings(deadline=None, max_examples=40)
def test_any_set_of_views_overlaps_as_before(views):
    """Writing through each view in turn leaves the same in all of them, here and there."""
    base = torch.zeros(10_000, dtype=torch.int64)
    made = [base[i * 150 :].as_strided((n,), (step,)) for i, n, step in views]
    back = there_and_back(made)
    for number, (here, there) in enumerate(zip(made, back, strict=True), start=1):
        here.add_(number)
        there.add_(number)
    for here, there in zip(made, back, strict=True):
        assert here.tolist() == there.tolist()
        assert here.stride() == there.stride()


def test_a_small_view_of_a_large_tensor_ships_only_what_it_shows():
    """Neither the size nor the rest of the content travels."""
    secret = torch.full((1_000_000,), 7, dtype=torch.uint8)
    data = pack(secret[500_000:500_010], kind="test")
    assert len(data) < 4096
    assert data.count(b"\7" * 65) == 0


def test_two_small_views_far_apart_ship_only_what_they_show():
    """What lies between them does not travel."""
    large = torch.arange(1_000_000)
    data = pack((large[:5], large[-5:]), kind="test")
    assert len(data) < 8192
    assert [each.tolist() for each in unpack(data, trusted=True)] == [
        large[:5].tolist(),
        large[-5:].tolist(),
    ]


def test_one_tensor_in_two_places_is_one_tensor():
    """The identity of objects is kept, and memory is written once."""
    weight = torch.nn.Parameter(torch.randn(1000))
    data = pack({"a": weight, "b": [weight]}, kind="test")
    back = unpack(data, trusted=True)
    assert back["a"] is back["b"][0]
    assert len(data) < 4000 + 4000


def test_parameters_gradients_flags_and_attributes_are_kept():
    """A Parameter stays one, `requires_grad` stays, and so do attributes that the user set."""
    marked = torch.ones(2)
    marked.note = "mine"
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    wants = torch.ones(2, requires_grad=True)
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.tag = [1]
    buffer = torch.nn.Buffer(torch.ones(2))
    back = there_and_back([marked, frozen, wants, parameter, buffer, wants * 2])
    assert back[0].note == "mine"
    assert isinstance(back[1], torch.nn.Parameter)
    assert not back[1].requires_grad
    assert back[2].requires_grad
    assert back[2].is_leaf
    assert back[3].tag == [1]
    assert isinstance(back[4], torch.nn.Buffer)
    assert back[5].requires_grad


def test_tied_parameters_of_a_module_stay_tied():
    """An update of one shows in the other."""
    module = torch.nn.ModuleDict({"in": torch.nn.Linear(3, 3), "out": torch.nn.Linear(3, 3)})
    module["out"].weight = module["in"].weight
    back = there_and_back(module)
    assert back["out"].weight is back["in"].weight


def test_other_layouts_are_kept():
    """Sparse and nested tensors and those of the meta device come back as they were."""
    coo = torch.eye(4).to_sparse()
    meta = torch.empty(3, 4, dtype=torch.float16, device="meta")
    back = there_and_back([coo, meta])
    assert back[0].layout is torch.sparse_coo
    assert torch.equal(back[0].to_dense(), torch.eye(4))
    assert (back[1].device.type, back[1].dtype, back[1].shape) == (
        "meta",
        torch.float16,
        meta.shape,
    )


class Tagged(torch.Tensor):
    """A subclass with content of its own."""


def test_a_subclass_of_tensor_stays_one():
    """The class and its attributes are kept."""
    tagged = torch.arange(6.0).view(2, 3)[:, 1:].as_subclass(Tagged)
    tagged.note = 5
    back = there_and_back(tagged)
    assert type(back) is Tagged
    assert back.note == 5
    assert back.tolist() == tagged.tolist()
    assert back.stride() == tagged.stride()


def test_storages_themselves_are_shared_with_their_tensors():
    """A storage that travels beside its tensor is that tensor's storage."""
    tensor = torch.arange(5)
    back, untyped, typed = there_and_back([tensor, tensor.untyped_storage(), tensor._typed_storage()])
    back[0] = 9
    assert bytes(untyped)[0] == 9
    assert typed._untyped_storage.data_ptr() == back.data_ptr()


def test_large_numpy_arrays_travel_beside_the_pickle_and_come_back_writable(tmp_path):
    """They are entries of their own, over the mapped file."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(10_000)
    pack_file({"array": array, "small": array[:3]}, tmp_path / "f", kind="test")
    manifest = inspect(tmp_path / "f")
    assert any(name.startswith("buffer.") for name in manifest.digests)
    back = unpack_file(tmp_path / "f", trusted=True)
    back["array"][0] = 5
    assert back["array"][1:].tolist() == array[1:].tolist()
    assert unpack_file(tmp_path / "f", trusted=True)["array"][0] == 0


def test_thousands_of_small_tensors_keep_the_header_small(tmp_path):
    """Beyond a number they share one entry; overlaps are kept."""
    base = torch.arange(20_000.0)
    many = [torch.full((3,), float(i)) for i in range(3000)] + [base[5:8], base[6:9]]
    pack_file(many, tmp_path / "f", kind="test")
    manifest = inspect(tmp_path / "f")
    assert len(manifest.digests) < 600
    assert len(manifest.tensors) + manifest.tensors_not_listed == 3002
    back = unpack_file(tmp_path / "f", trusted=True)
    assert all(torch.equal(a, b) for a, b in zip(many, back, strict=True))
    back[-1][0] = -1
    assert back[-2][1] == -1


def test_any_safetensors_reader_opens_the_file(tmp_path):
    """Each entry is flat, of the tensor's own type where that is a common one."""
    safetensors = pytest.importorskip("safetensors.torch")
    weight = torch.randn(5, 3)
    pack_file({"w": weight, "half": weight.bfloat16(), "f8": weight.half()}, tmp_path / "f", kind="t")
    entries = safetensors.load_file(tmp_path / "f")
    assert entries["tensor.t.0"][:15].tolist() == weight.reshape(-1).tolist()
    assert entries["tensor.t.1"].dtype is torch.bfloat16
    assert entries["payload"].dtype is torch.uint8
    assert all(entry.numel() * entry.element_size() % 64 == 0 for entry in entries.values())
    assert all(entry.data_ptr() % 64 == 0 for entry in entries.values())


@pytest.mark.parametrize(
    "where",
    ["meta", torch.device("meta"), {"cpu": "meta"}, lambda storage, device: None],
    ids=["name", "device", "mapping", "callable"],
)
def test_tensors_go_where_map_location_says(where):
    """A device for all, a mapping by device, or a function; None stands for the CPU."""
    back = unpack(pack(torch.ones(3), kind="t"), trusted=True, map_location=where)
    assert back.device.type == ("cpu" if callable(where) else "meta")
    assert back.shape == (3,)


def test_a_default_device_of_the_reader_does_not_matter():
    """Tensors come back on the CPU whatever `torch.set_default_device` says."""
    data = pack([torch.ones(3), torch.empty(0)], kind="t")
    with torch.device("meta"):
        back = unpack(data, trusted=True)
    assert [each.device.type for each in back] == ["cpu", "cpu"]
    assert back[0].tolist() == [1, 1, 1]
