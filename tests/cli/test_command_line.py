"""What all commands share: exit codes, messages, lazy imports, and keys that stay secret."""

from __future__ import annotations

import ast
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rebind.runtime.cli import demo
from rebind.runtime.cli.outcomes import CODES
from rebind.serialization import SigningKey

ROOT = Path(__file__).parents[2]


def module(*arguments, **options):
    """A command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "rebind", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_help_is_quick_and_imports_neither_torch_nor_pydantic():
    """It needs nothing but the arguments' own file."""
    code = (
        "import sys; from rebind.runtime.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as ended: assert ended.code == 0\n"
        "assert not {'torch', 'pydantic', 'rich', 'blake3'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("inspect", "verify", "diff", "run", "keygen", "demo"):
        assert command in done.stdout


def test_the_exit_codes_are_told_by_every_help_and_in_the_docs(rebind):
    """The same ones, everywhere."""
    docs = (ROOT / "docs" / "command-line.md").read_text()
    for command in ((), ("inspect",), ("run",)):
        ran = rebind(*command, "--help")
        assert ran.code == 0
        for code, meaning in CODES.items():
            assert f"{code:<4}{meaning}" in ran.out
    for code in CODES:
        assert f"| {code} |" in docs


@pytest.mark.parametrize(
    "arguments",
    [(), ("nothing",), ("inspect",), ("run", "f"), ("run", "f", "--model", "m:f", "--max-steps", "-1")]
    + [("run", "f", "--model", "m:f", "--timeout", each) for each in ("0", "nan", "inf", "soon")],
)
def test_a_wrong_command_line_exits_with_2(rebind, arguments):
    """And says how it is used."""
    ran = rebind(*arguments)
    assert ran.code == 2
    assert "usage: rebind" in ran.err


def test_what_is_missing_exits_with_4_and_one_line(rebind, files):
    """A file, a key's file, a variable."""
    for arguments in (
        ("inspect", files / "no"),
        ("diff", files / "code", files / "no"),
        ("verify", files / "signed", "--key-file", files / "no"),
        ("verify", files / "signed", "--key-env", "NO_SUCH_VARIABLE"),
        ("keygen", "--key-file", files / "no" / "key"),
    ):
        ran = rebind(*arguments)
        assert (ran.code, ran.out) == (4, "")
        assert ran.err.startswith("rebind: ")
        assert ran.err.count("\n") == 1


def test_a_process_ends_with_the_exit_code_and_without_a_traceback(files):
    """As the shell sees it."""
    done = module("inspect", files / "missing")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert module("--version").stdout.startswith("rebind ")


def test_a_reader_who_has_enough_is_no_error(files):
    """As in `rebind inspect FILE | head -1`."""
    shell = f"{sys.executable} -m rebind inspect {files / 'code'} | true"
    done = subprocess.run(
        ["bash", "-c", f"{shell}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 141)
    assert not done.stderr


def test_a_secret_is_never_printed(rebind, files, monkeypatch):
    """Not by any command, whether it succeeds or fails."""
    key = SigningKey.from_file(files / "key")
    monkeypatch.setenv("TEST_KEY", "short secret")
    (files / "bad").write_text("rebind-key ci abcdef\n")
    said = ""
    for arguments in (
        ("keygen", "--key-file", files / "new"),
        ("keygen", "--key-file", files / "key"),
        ("inspect", files / "signed", "--key-file", files / "key"),
        ("verify", files / "signed", "--key-file", files / "key", "--json"),
        ("verify", files / "code", "--key-file", files / "key"),
        ("verify", files / "signed", "--key-env", "TEST_KEY"),
        ("verify", files / "signed", "--key-file", files / "bad"),
    ):
        ran = rebind(*arguments)
        said += ran.out + ran.err
    new = SigningKey.from_file(files / "new")
    for secret in (key.secret, new.secret):
        assert secret.hex() not in said
        assert secret.decode("latin-1") not in said
    assert "short secret" not in said
    assert "abcdef" not in said


def test_a_new_key_is_private_and_never_replaces_one(rebind, files):
    """Its name is told; a name may be given."""
    ran = rebind("keygen", "--key-file", files / "new", "--id", "mine")
    assert ran == (0, f"{files / 'new'}: the signing key 'mine', readable by you only\n", "")
    assert SigningKey.from_file(files / "new").id == "mine"
    assert stat.S_IMODE((files / "new").stat().st_mode) == 0o600
    ran = rebind("keygen", "--key-file", files / "another", "--json")
    assert json.loads(ran.out) == {
        "key_file": str(files / "another"),
        "id": SigningKey.from_file(files / "another").id,
    }
    before = (files / "key").read_bytes()
    assert rebind("keygen", "--key-file", files / "key").code == 4
    assert (files / "key").read_bytes() == before


def test_the_demo_names_its_extra_where_a_library_is_missing(rebind, monkeypatch):
    """Instead of a traceback in the middle of it."""
    monkeypatch.setattr(demo, "find_spec", lambda module: None)
    ran = rebind("demo")
    assert ran.code == 4
    assert "rebind[demo]" in ran.err


def test_the_demo_is_the_example_and_knows_its_libraries():
    """The script is the one in `examples/`; whatever it imports beyond rebind comes with the extra."""
    assert demo.script() == ROOT / "examples" / "digits_sweep.py"
    imported = set()
    for node in ast.walk(ast.parse(demo.script().read_text())):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        imported.update(name.partition(".")[0] for name in names)
    assert imported - sys.stdlib_module_names - {"torch", "rich", "rebind"} <= set(demo._LIBRARIES)


@pytest.mark.long
def test_the_demo_runs(tmp_path):
    """In a folder of the user's, where it leaves the evaluator and the picture; told as JSON."""
    done = module("demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [trial["name"] for trial in told["trials"]] == ["0%", "25%", "50%", "75%", "90%"]
    assert told["dense"] > 0.97
    assert "Saved: digits_sweep.rebind" in done.stderr
    assert {each.name for each in tmp_path.iterdir()} == {"digits_sweep.rebind", "digits_sweep.png"}
