"""The page on errors: every error is on it, and its example raises it."""

import re
import sys

import pydantic
import pytest
from pages import DOCS

import rebind
from rebind.serialization import drafting

PAGE = (DOCS / "errors.md").read_text()
# Roots are shown by an error that is a kind of them.
ROOTS = {"SerializationError", "SignatureError"}
# These are told as problems in the error of creation, in these words.
PROBLEMS = {"CaptureError": r"trace\(Scaled\)", "ImportPathError": "did you mean 'SGD'"}


def public_errors():
    """The public exceptions by name, but for the root of all."""
    found = {name: getattr(rebind, name) for name in rebind.__all__}
    found = {
        name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    return {name: kind for name, kind in found.items() if kind is not rebind.RebindError}


def sections():
    """The text under each heading of the third level, by heading."""
    parts = re.split(r"^#+ (\w+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def code_of(text):
    """The one Python block of a text."""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return code


def files_of_others(monkeypatch, evaluator):
    """Write the two files that the page takes for granted, which nobody here would write."""
    here = drafting.current_versions()
    with monkeypatch.context() as patch:
        patch.setattr(drafting, "current_versions", lambda: here | {"python": "3.99.0"})
        rebind.save(evaluator, "of-another-python.rebind")
    with monkeypatch.context() as patch:
        patch.setattr(drafting, "FORMAT", drafting.FORMAT + 1)
        rebind.save(evaluator, "of-a-later-rebind.rebind")


def test_every_public_error_is_on_the_page_with_its_cure():
    """One that is added later, too; and the page has none that is gone."""
    found = sections()
    assert set(found) - {"ValidationError"} == set(public_errors())
    for name, text in found.items():
        assert "\nCure: " in text, name


@pytest.mark.parametrize("name", sections())
def test_the_example_under_an_error_raises_it(name, tmp_path, monkeypatch):
    """Exactly that class; a root by one of its kinds, and a problem of creation inside its error."""
    monkeypatch.chdir(tmp_path)
    for module in ("helpers", "only_here"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    page = {"__name__": "the_page_on_errors"}
    exec(code_of(PAGE.partition("\n## ")[0]), page)
    files_of_others(monkeypatch, page["evaluator"])
    with pytest.raises(Exception, match=PROBLEMS.get(name)) as caught:
        exec(code_of(sections()[name]), page)
    raised = type(caught.value)
    if name in ROOTS:
        assert issubclass(raised, getattr(rebind, name))
    elif name in PROBLEMS or name == "ValidationError":
        assert raised is pydantic.ValidationError
    else:
        assert raised is getattr(rebind, name), caught.value
