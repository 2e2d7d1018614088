"""The pages of the reference: every public name is on one, and every name on them is there."""

import inspect
import re
from importlib import import_module

import pytest
from pages import DOCS

REFERENCE = DOCS / "reference"
# The front doors: what they list is public.
PUBLIC = [
    "rebind",
    "rebind.evaluator_schema",
    "rebind.runtime",
    "rebind.runtime.integrations.nni",
    "rebind.runtime.integrations.torch_pruning",
    "rebind.runtime.pools",
    "rebind.serialization",
    "rebind.testing",
]


def names_in(door):
    """What a module lists as public; where it lists nothing, its own functions."""
    return getattr(door, "__all__", None) or [
        name
        for name, value in vars(door).items()
        if inspect.isfunction(value) and value.__module__ == door.__name__ and not name.startswith("_")
    ]


def found_at(path):
    """The object that a dotted path leads to."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise LookupError(path)


def described():
    """What the pages describe: pairs of the directive and the dotted path."""
    text = "".join(page.read_text() for page in REFERENCE.glob("*.md"))
    return re.findall(r"^\.\. auto(\w+):: ([\w.]+)$", text, re.MULTILINE)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module):
    """One that is added later, too."""
    door = import_module(module)
    there = [found_at(path) for _, path in described()]
    names = names_in(door)
    assert names
    assert not [name for name in names if not any(getattr(door, name) is it for it in there)]


def test_each_name_is_described_once_as_what_it_is_and_has_a_docstring_of_its_own():
    """A class as a class, an error as an error; and not by the docstring of its base."""
    paths = [path for _, path in described()]
    assert len(paths) == len(set(paths)) > 80
    for kind, path in described():
        found = found_at(path)
        is_class = isinstance(found, type)
        expected = "function" if not is_class else "exception" if issubclass(found, Exception) else "class"
        assert kind == expected, path
        assert vars(found).get("__doc__") if is_class else inspect.getdoc(found), path


def test_no_page_has_a_name_that_the_site_needs_itself():
    """Sphinx writes pages of its own, and would put them over ours without a word."""
    assert not {page.stem for page in DOCS.glob("*.md")} & {"search", "genindex", "py-modindex"}
