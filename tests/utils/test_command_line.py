"""How commands parse options, report errors and print the command lines of other commands."""

import logging
import shlex
import sys
from pathlib import Path

import pytest

from d2_detr.cli import COMMANDS
from d2_detr.utils import command_line
from d2_detr.utils.command_line import TOOLS, CommandParser, command, command_argv, run_command
from d2_detr.utils.errors import InputError


@pytest.fixture(autouse=True)
def no_debug(monkeypatch):
    monkeypatch.setenv(command_line.DEBUG_VARIABLE, "")


@pytest.fixture
def parser():
    parser = CommandParser("predict", "Detect.\n\nd2_detr predict --weights W", {"--width": "leave it out"})
    parser.add_argument("--weights", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("-k", type=int)
    parser.add_argument("opts", nargs="*")
    return parser


TOOLS_FOLDER = Path(__file__).parents[2] / "tools"
REQUIRED = ["--weights", "W", "--input", "I"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--weight", "W", "--input", "I"], "unknown option --weight; did you mean --weights?"),
        (["--weight=W"], "unknown option --weight; did you mean --weights?"),
        ([*REQUIRED, "KEY", "1", "--inptu", "I"], "unknown option --inptu; did you mean --input?"),
        ([*REQUIRED, "--xyz"], "unknown option --xyz ("),
        ([*REQUIRED, "-z"], "unknown option -z ("),
        ([*REQUIRED, "--width", "3"], "--width: leave it out"),
        (["--input", "I"], "the following arguments are required: --weights"),
        ([*REQUIRED, "-k", "many"], "argument -k: invalid int value: 'many'"),
    ],
    ids=["misspelt", "with_value", "after_opts", "unlike_any", "short", "hint", "missing", "no_number"],
)
def test_invalid_option_is_one_line_with_a_hint(parser, capsys, args, message):
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(args)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("args", [["KEY", "-1", *REQUIRED], [*REQUIRED, "KEY", "-1"]], ids=["before", "after"])
def test_key_value_pairs_may_precede_or_follow_options(parser, args):
    parsed = parser.parse_args(args)
    assert (parsed.weights, parsed.input, parsed.opts) == ("W", "I", ["KEY", "-1"])


@pytest.mark.parametrize(
    "error", [InputError("a.json: wrong"), FileNotFoundError("a.json: wrong")], ids=["input", "system"]
)
def test_error_message_follows_all_output(capfd, error, caplog):
    def main():
        print("before")
        raise error

    caplog.set_level(logging.DEBUG, "d2_detr")
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    captured = capfd.readouterr()
    assert (stop.value.code, captured.out, captured.err) == (1, "before\n", "error: a.json: wrong\n")
    assert "Traceback" in caplog.text, "for the log file"


def test_system_error_mentions_the_debug_option(capsys):
    with pytest.raises(SystemExit):
        run_command(lambda: Path("/no/such/file").read_text())
    assert capsys.readouterr().err.endswith("'/no/such/file' (--debug shows where)\n")


@pytest.mark.parametrize("argv", [["tools/predict.py"], ["/venv/bin/d2_detr", "predict"]], ids=["tool", "command"])
def test_parsing_keeps_the_command_line_for_the_log(monkeypatch, parser, argv):
    monkeypatch.setattr(sys, "argv", [*argv, *REQUIRED])
    assert parser.parse_args().weights == "W" and sys.argv == [*argv, *REQUIRED]


def test_debug_shows_the_traceback(monkeypatch, parser):
    monkeypatch.setattr(sys, "argv", ["d2_detr", *REQUIRED, "--debug"])

    def main():
        parser.parse_args()
        raise InputError("wrong")

    with pytest.raises(InputError):
        run_command(main)


def test_interruption_exits_with_status_130(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("started_as", "installed", "expected"),
    [
        ("tools/predict.py", None, "PYTHON tools/evaluate.py --data 'my data'"),
        (f"{TOOLS_FOLDER}/train_net.py", "/bin/d2_detr", f"PYTHON {TOOLS_FOLDER}/evaluate.py --data 'my data'"),
        ("/venv/bin/d2_detr", "/venv/bin/d2_detr", "d2_detr evaluate --data 'my data'"),
        ("/site/d2_detr/__main__.py", "/venv/bin/d2_detr", "PYTHON -m d2_detr evaluate --data 'my data'"),
        ("/usr/bin/jupyter", "/venv/bin/d2_detr", "d2_detr evaluate --data 'my data'"),
        ("my_script.py", None, "PYTHON -m d2_detr evaluate --data 'my data'"),
        ("/home/me/train_net.py", None, "PYTHON -m d2_detr evaluate --data 'my data'"),
    ],
    ids=["tool", "tool_elsewhere", "console_script", "module", "notebook", "not_installed", "name_of_a_tool"],
)
def test_printed_commands_match_how_the_program_was_started(monkeypatch, started_as, installed, expected):
    monkeypatch.setattr(sys, "argv", [started_as])
    monkeypatch.setattr(command_line.shutil, "which", lambda name: installed if name == "d2_detr" else None)
    printed = command("evaluate", "--data", "my data")
    assert printed == expected.replace("PYTHON", shlex.quote(command_line.python()))
    assert command_argv("evaluate")[0] in (sys.executable, installed)


def test_help_examples_match_how_the_program_was_started(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tools/predict.py"])
    parser = CommandParser("predict", "Detect.\n\nd2_detr predict --weights W")
    assert "tools/predict.py --weights W" in parser.format_help() and parser.prog == "predict.py"


def test_every_command_has_a_tool():
    assert COMMANDS.keys() == TOOLS.keys()
