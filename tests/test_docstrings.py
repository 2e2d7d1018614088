"""Docstrings: whatever is public has one that tells its arguments and errors, and their examples run."""

from __future__ import annotations

import ast
import doctest
import inspect
import pkgutil
import re
import textwrap
from importlib import import_module

import pytest
from test_reference_pages import described, found_at

import rebind

# These come with software that an environment may lack; its own test imports them.
OPTIONAL = {"nni", "ray", "distributed", "transformers"}


def modules():
    """Every module of the package that can be imported here."""
    for found in pkgutil.walk_packages(rebind.__path__, "rebind."):
        if found.name.split(".")[1] in ("evaluator_schema", "serialization", "runtime", "testing"):
            if "._examples" in found.name:
                continue
            try:
                yield import_module(found.name)
            except ModuleNotFoundError as error:
                assert error.name.partition(".")[0] in OPTIONAL, error


def public():
    """Every public function, class and method, by its dotted path, with the texts that describe it.

    A method that overrides another one takes what that one takes.
    """
    for _, path in described():
        found = found_at(path)
        yield path, (found, [inspect.getdoc(found)])
        if not isinstance(found, type) or issubclass(found, Exception):
            continue
        for name in dir(found):
            member = inspect.getattr_static(found, name)
            function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
            function = function.fget if isinstance(function, property) else function
            ours = getattr(function, "__module__", None) or ""
            if inspect.isfunction(function) and ours.startswith("rebind.") and not name.startswith("_"):
                yield (
                    f"{path}.{name}",
                    (function, [text for base in found.__mro__ if (text := doc(base, name))]),
                )


def doc(kind, name):
    """The docstring that a class itself gives to a member."""
    return inspect.cleandoc(getattr(vars(kind).get(name), "__doc__", None) or "")


# Nobody calls these: `bind` and `add_parameters` give the first two, and the third is an enumeration.
MADE_ELSEWHERE = {"rebind.Binding", "rebind.runtime.state.joining.Joined", "rebind.runtime.pools.Fate"}


def section(text, name):
    """The part of a Google docstring under a heading."""
    found = re.search(rf"^{name}:\n((?:    .*\n|\n)*)", f"{text}\n", re.MULTILINE)
    return found[1] if found else ""


def parameters(found):
    """What is passed by a name."""
    try:
        given = inspect.signature(found).parameters.values()
    except ValueError:
        return []
    return [one.name for one in given if one.name not in ("self", "cls") and not one.name.startswith("_")]


def raises_itself(function):
    """Whether there is a `raise` of a new error in the body, not in a function inside of it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except OSError:
        return False  # Hypothesis wrote it
    left = [*tree.body]
    while left:
        node = left.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if not isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            left += ast.iter_child_nodes(node)
    return False


PUBLIC = dict(public())


@pytest.mark.parametrize("path", PUBLIC)
def test_a_public_name_tells_what_it_takes_and_what_it_raises(path):
    """A first line that ends as a sentence; each argument, or attribute of a class; each raise."""
    found, texts = PUBLIC[path]
    assert texts
    text = texts[0]
    assert re.search(r"[.:?]$", text.partition("\n\n")[0]), text
    if isinstance(found, type) and issubclass(found, Exception):
        return
    told = "".join(section(text, name) for text in texts for name in ("Args", "Attributes"))
    taken = [] if path in MADE_ELSEWHERE else parameters(found)
    silent = [name for name in taken if not re.search(rf"^    \*{{0,2}}{name}\b", told, re.MULTILINE)]
    assert not silent, f"{path} does not tell of {silent}"
    if inspect.isfunction(found) and raises_itself(found):
        assert any(section(text, "Raises") for text in texts), f"{path} does not tell what it raises"


def test_the_examples_in_docstrings_give_what_they_say():
    """Each `>>>` of every module, those of names that are not public too."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    examples = 0
    for module in modules():
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
            said = []
            runner.run(test, out=said.append)
            examples += len(test.examples)
            assert not said, "".join(said)
    assert examples > 40
