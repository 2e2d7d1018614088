"""All pages: every block is run or checked by some test, every command and every link leads somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib

import pytest
from pages import ROOT, RUN_BY, fences, pages

from rebind.runtime.cli.arguments import parser

PAGES = pages()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MAKEFILE = (ROOT / "Makefile").read_text()
# Commands that other tests run as they stand there.
RUN_ELSEWHERE = {
    "torchrun": "distributed_training/test_distributed_docs.py",
    "dask": "clusters/test_cluster_tls.py",
}


def test_every_page_with_python_is_run_by_a_test_that_names_it():
    """So a new page with a block fails until it is run. No page is said to be run that has nothing to run."""
    with_python = {page for page, text in PAGES.items() if any(kind == "python" for kind, _ in fences(text))}
    assert with_python == set(RUN_BY)
    for page, tests in RUN_BY.items():
        for test in tests:
            name = page.rpartition("/")[2]
            source = (ROOT / test).read_text()
            named = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
            assert name in named, f"{test} does not run {page}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page):
    """A block of no language, or of another one, would be run and checked by nobody."""
    text = PAGES[page]
    assert {kind for kind, _ in fences(text)} <= {"python", "sh", "console", "json", "text", "{eval-rst}"}
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(fences(text))
    for kind, block in fences(text):
        if kind in ("python", "sh", "console"):
            long = [line for line in block.splitlines() if len(line) > 110]
            assert not long, "the site cuts these"


def commands():
    """Every command of every page, in blocks and within the text, with its page."""
    begin = r"make [a-z]|rebind [a-z]|python (?:-m )?[a-z]|pip install|torchrun|\.ci/"
    for page, text in PAGES.items():
        for kind, block in fences(text):
            lines = block.replace("\\\n", " ").splitlines()
            if kind == "sh":
                yield from ((page, line) for line in lines if line)
            elif kind == "console":  # beside what the commands print
                yield from ((page, line.removeprefix("$ ")) for line in lines if line.startswith("$ "))
        yield from ((page, line) for line in re.findall(rf"`((?:{begin})[^`]*)`", without_blocks(text)))


def without_blocks(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


COMMANDS = sorted(set(commands()))


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_is_one_that_there_is(page, command):
    """Targets, scripts, extras and options as they are now."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        assert all(f"\n{target}:" in MAKEFILE for target in words[1:]), words
    elif words[:3] == ["python3", "-m", "venv"]:
        assert words[3:] == [".venv", "&&", ".", ".venv/bin/activate"]
    elif words[:2] == ["pip", "install"]:
        *constraint, what = words[2:]
        assert constraint in ([], ["--constraint", "constraints.txt"])
        extra = re.fullmatch(r"rebind\[(.*)\]|\.(?:\[(.*)\])?", what)
        assert extra, what
        assert set(filter(None, (extra[1] or extra[2] or "").split(","))) <= set(EXTRAS)
    elif words[0] == "rebind" or words[:3] == ["python", "-m", "rebind"]:
        assert_known(words[1 if words[0] == "rebind" else 3 :])
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
    elif words[0] in RUN_ELSEWHERE:
        assert words[0] in (ROOT / "tests" / RUN_ELSEWHERE[words[0]]).read_text()
    else:
        assert (ROOT / words[0]).is_file(), f"{page} has a command that no test knows: {command}"


def assert_known(words):
    """Fail where the command line refuses a command, or would if it were written out."""
    options = [word for word in words if word.startswith("--")]
    known = {command: parse.format_help() for command, parse in subcommands().items()}
    if words and words[0] in known:
        assert all(option in known[words[0]] for option in options), words
    elif words and words[0] != "COMMAND":
        pytest.fail(f"there is no command {words[0]!r}")


def subcommands():
    (action,) = [one for one in parser()._actions if hasattr(one, "choices") and one.choices]
    return action.choices


def slug(heading):
    """The anchor that GitHub and the site make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower()).replace(" ", "-")


def anchors(text):
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_image_leads_to_something(page):
    """Pages, files, headings and pictures in the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(PAGES[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page):
    """Paths in the text, as in `examples/minilm.py`."""
    folders = "examples|tests|benchmarks|docs|evaluator_schema|serialization|runtime|testing"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", PAGES[page]):
        assert (ROOT / path).exists(), path


def test_every_page_of_the_site_is_in_the_list_of_pages():
    """The site's contents are made from it."""
    contents = PAGES["docs/README.md"]
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/README.md":
            assert f"]({page.removeprefix('docs/')})" in contents, page
