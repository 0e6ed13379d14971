"""The `unmask` command: its help, its options, and what it says when it is used wrongly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unmask
from tests.conftest import ROOT
from unmask.__main__ import main
from unmask.registry import GROUPS, build

COMMANDS = [command.name for group in GROUPS.values() for command in group]


def test_help_shows_every_command_on_one_screen_and_imports_none_of_them():
    code = "import sys, unmask.__main__ as m; m.main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) < 50
    assert max(map(len, lines)) <= 100
    for name in COMMANDS:
        line = next(line for line in lines if line.startswith(f"  {name} "))
        assert line.endswith(".")
    loaded = done.stderr
    for module in ("torch", "onnxruntime", "pydantic", "training", "serve", "export", "benchmarks"):
        assert f"'{module}'" not in loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_that_says_every_option_in_a_sentence(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Usage: unmask {name}")
    command = build()
    for word in name.split():
        command = command[word]
    for option in command.assemble_argument_collection(parse_docstring=True):
        assert not option.show or option.parameter.help or option.field_info.help, option.names


@pytest.mark.parametrize("folder", ["serve", "bench"])
def test_a_group_of_commands_lists_its_own(folder, capsys):
    assert main([folder]) == 2
    assert f"  {folder} " in capsys.readouterr().err
    assert main([folder, "--help"]) == 0
    listed = re.findall(r"^  (\w+ \S+)", capsys.readouterr().out, re.MULTILINE)
    assert listed == [name for name in COMMANDS if name.startswith(f"{folder} ")]


def test_nothing_typed_is_wrong_usage(capsys):
    assert main([]) == 2
    assert "Usage: unmask COMMAND" in capsys.readouterr().err


def test_the_version_is_in_one_place(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == unmask.__version__
    found = [p for p in ("pyproject.toml", "Dockerfile") if re.search(r'^version = "\d', (ROOT / p).read_text(), re.MULTILINE)]
    assert found == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluat"], "unknown command"),
        (["train"], "--data"),
        (["train", "--data", "x", "--epochz", "3"], "--epochz"),
        (["train", "--data", "x", "--lr", "1e-3", "--lr", "1e-4"], "--lr specified multiple times"),
        (["train", "--data", "x", "--resume", "--resume"], "--resume specified multiple times"),
        (["train", "--data", "x", "--amp", "fp8"], "--amp"),
        (["train", "--data", "x", "--img_size", "3"], "--img_size must be from 16 to 2048"),
        (["train", "--data", "x", "--size", "3"], "--size must be from 16 to 2048"),
        (["train", "--data", "x", "--output_dir", "y", "--out", "z"], "multiple times"),
        (["train", "--data", "x", "--calibration", "platt", "--no-calibrate"], "--no-calibrate"),
        (["train", "--data", "x", "--hidden", "a"], "'a' is neither numbers"),
        (["evaluate", "--data", "x"], "--checkpoint"),
        (["evaluate", "--data", "x", "--model", "m", "--threshold", "2"], "between 0 and 1"),
        (["serve", "start", "--rest-port", "70000"], "--rest-port (UNMASK_REST_PORT)"),
        (["serve", "start", "--device", "tpu"], "'cpu', 'cuda' or 'tensorrt'"),
        (["bench", "peers", "--artifacts", "x", "--peers", "flask"], "flask: unknown"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, said, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_values_of_an_option_that_takes_several_add_up(tmp_path, capsys):
    _, bound, _ = build().parse_args(
        ["export", "--run", "r", "--out", "o", "--precision", "int8", "--precision", "fp16"], exit_on_error=False
    )
    assert bound.arguments["precision"] == ("int8", "fp16")
    _, bound, _ = build().parse_args(["export", "--run", "r", "--out", "o", "--precision", "int8", "fp16"])
    assert bound.arguments["precision"] == ("int8", "fp16")


def options_of(*arguments: str):
    _, bound, _ = build().parse_args(["train", *arguments], exit_on_error=False)
    return bound.arguments["options"]


def test_what_is_not_given_is_the_architectures_own():
    assert options_of("--data", "x").size == 128
    resnet = options_of("--data", "x", "--model", "resnet50", "--dropout", "0.1")
    assert (resnet.size, resnet.hidden, resnet.dropout, resnet.head_norm) == (224, (512, 128), 0.1, True)
    assert options_of("--data", "x", "--model", "resnet50", "--hidden", "none", "--no-head-norm").hidden == ()


def test_options_come_from_a_file_where_the_command_line_gives_none(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data: photos\nhidden: [64, 32]\nlr: 0.002\nweights: null\npretrained: false\nepochs: 7\n")
    options = options_of("--config", str(file), "--epochs", "3")
    assert (options.data, options.hidden, options.lr, options.epochs) == (Path("photos"), (64, 32), 0.002, 3)
    assert not options.pretrained


@pytest.mark.parametrize(
    ("text", "said"),
    [("epochz: 3\n", "epochz"), ("- 3\n", "expected a mapping"), ("a: [", "is not YAML"), ("epochs: many\n", "many")],
)
def test_a_file_of_options_that_can_not_work_is_named(text, said, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert main(["train", "--data", "x", "--config", str(file)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "serve start", "score"])
def test_without_a_home_help_is_help(name):
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")}
    # As for an arbitrary uid in a container: no variable says where home is, and the user is in no database.
    code = """import pwd, sys
def unknown(uid): raise KeyError(uid)
pwd.getpwuid = unknown
from unmask.__main__ import main
sys.exit(main(sys.argv[1:]))"""
    done = subprocess.run(
        [sys.executable, "-c", code, *name.split(), "--help"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: unmask {name}")


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ("inspect {file}", "torch", "training"),
        ("verify {folder}", "onnxruntime", "export"),
        ("serve status", "pydantic_settings", "serve"),
        ("predict {file}", "httpx", "server"),
        ("score --model model.onnx {file}", "tqdm", "score"),
        ("bench roofline --artifacts {folder}", "psutil", "benchmarks"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_what_installs_it(command, package, extra, tmp_path):
    file = tmp_path / "a.pth"
    file.touch()
    # A name that is None in sys.modules is a module that is not there.
    code = f"import sys; sys.modules[{package!r}] = None; from unmask.__main__ import main; sys.exit(main(sys.argv[1:]))"
    words = command.format(file=file, folder=tmp_path).split()
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: this command needs {package}, which is not installed; install unmask[{extra}]\n"


def test_output_that_nobody_reads_is_no_traceback():
    process = subprocess.Popen(
        [sys.executable, "-m", "unmask", "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait(60) in (0, 1)


def test_public_names_are_loaded_when_they_are_used():
    code = "import sys, unmask; before = 'numpy' in sys.modules; unmask.decode_image; print(before, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    for name in unmask.__all__:
        assert getattr(unmask, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        unmask.nothing  # noqa: B018
