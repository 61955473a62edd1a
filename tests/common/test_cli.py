import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common import cli
from common.types import UsageError, require


@dataclass(frozen=True)
class Algo:
    gamma: float = 0.9
    hidden: tuple[int, ...] = (64, 64)  # units per layer

    def __post_init__(self):
        require(0 <= self.gamma <= 1, f"gamma must lie in [0, 1], got {self.gamma}")


@dataclass(frozen=True)
class Other:
    epsilon: float = 0.1


@dataclass(frozen=True)
class Train:
    total_steps: int = 100


@dataclass(frozen=True, kw_only=True)
class Config(cli.RunOptions):
    algo: Algo | Other
    train: Train = field(default_factory=Train)


PRESETS = {
    "algo-env": Config(preset="algo-env", env_id="Env-v0", algo=Algo()),
    "other-env": Config(preset="other-env", env_id="Env-v0", algo=Other()),
}


def parse(*argv: str) -> Config:
    return cli.parse(PRESETS, "algo-env", [*map(str, argv)])


def test_no_argument_is_the_default_preset():
    assert parse() == PRESETS["algo-env"]


def test_options_override_the_preset():
    config = parse("other-env", "--seed", 3, "--algo.epsilon", 0.5, "--train.total-steps", 7, "--video")
    assert (config.seed, config.algo, config.train.total_steps, config.video) == (3, Other(0.5), 7, True)
    assert parse("--algo.hidden", 8, 4).algo.hidden == (8, 4)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["alg-env"], "did you mean algo-env"),
        (["--algo.gama", "1"], "--algo.gama.*did you mean --algo.gamma"),
        (["--algo.gamma", "2"], r"gamma must lie in \[0, 1\], got 2.0"),
        (["--algo.gamma", "high"], "gamma.*high"),
        (["--algo.epsilon", "1"], "--algo.epsilon"),
        (["--seed", "-1"], "seed must lie in .*, got -1"),
        (["--seed", "99999999999999999999"], "seed must lie in"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--train.total-steps", "1e5"], "total-steps.*1e5"),
        (["--resume"], "--resume needs a run directory"),
        (["--resume", "nowhere"], "nowhere is not the directory of a run of this homework"),
        (["algo-env", "other-env"], "other-env"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(argv, sentence):
    with pytest.raises(UsageError, match=sentence) as error:
        parse(*argv)
    assert "\n" not in str(error.value)


def test_config_file_goes_round(tmp_path):
    config = parse("--algo.hidden", 8, "--seed", 2, "--out", tmp_path)
    directory = cli.run_directory(config, "hw")
    assert cli.stored(PRESETS, directory) == config
    assert directory.parent == tmp_path / "hw" / "algo-env" / "Env-v0"
    assert directory.name.endswith("_seed_2")


def test_runs_are_never_overwritten(tmp_path):
    config = parse("--out", tmp_path)
    assert len({cli.run_directory(config, "hw") for _ in range(5)}) == 5


def test_resume_takes_the_settings_of_the_run(tmp_path):
    first = parse("other-env", "--algo.epsilon", 0.7, "--seed", 4, "--out", tmp_path)
    directory = cli.run_directory(first, "hw")
    resumed = parse("--resume", directory)
    assert resumed == dataclasses.replace(first, resume=directory)
    assert parse("--resume", directory, "--train.total-steps", 900).train.total_steps == 900
    with pytest.raises(UsageError, match=r"a resumed run keeps its algo.epsilon, seed"):
        parse("--resume", directory, "--algo.epsilon", 0.1, "--seed", 9)
    with pytest.raises(UsageError, match="is a run of other-env, not algo-env"):
        parse("algo-env", "--resume", directory)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"preset": "x"}', '{"preset": "algo-env"}'])
def test_a_foreign_or_damaged_config_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match="is not the directory of a run"):
        parse("--resume", tmp_path)


def test_values_in_a_config_are_checked_again(tmp_path):
    directory = cli.run_directory(parse("--out", tmp_path), "hw")
    stored = json.loads((directory / "config.json").read_text())
    stored["algo"]["gamma"] = 7
    (directory / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UsageError, match=r"config.json: gamma must lie in \[0, 1\], got 7"):
        parse("--resume", directory)
    (directory / "config.json").write_text(json.dumps(stored | {"env_id": 5}))
    with pytest.raises(UsageError, match=r"config.json: .*must be"):
        parse("--resume", directory)


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="out: cannot write"):
        cli.run_directory(parse("--out", tmp_path / "file"), "hw")


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (UsageError("x"), 2, "error: x\n"),
        (FloatingPointError("x"), 2, "error: x\n"),
        (OSError("x"), 2, "error: cannot write the run: x\n"),
        (MemoryError("x"), 2, "error: these settings need more memory than there is: x\n"),
        (
            RuntimeError("can't allocate x"),
            2,
            "error: these settings need more memory than there is: can't allocate x\n",
        ),
        (
            KeyboardInterrupt(),
            130,
            "interrupted; --resume RUN_DIR goes on from the last checkpoint, or starts over without one\n",
        ),
        (None, 0, ""),
    ],
)
def test_exit_status_and_no_traceback(error, status, sentence, monkeypatch, capsys):
    def run(config):
        if error:
            raise error
        return "finished"

    monkeypatch.setattr("sys.argv", ["run"])
    with pytest.raises(SystemExit) as end:
        cli.main(PRESETS, "algo-env", run)
    assert end.value.code == status
    assert capsys.readouterr().err == sentence


def test_an_interrupted_run_ends_as_ctrl_c_does(monkeypatch):
    monkeypatch.setattr("sys.argv", ["run"])
    with pytest.raises(SystemExit) as end:
        cli.main(PRESETS, "algo-env", lambda config: "interrupted")
    assert end.value.code == 130


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr("sys.argv", ["run"])
    with pytest.raises(ZeroDivisionError):
        cli.main(PRESETS, "algo-env", lambda config: 1 / 0)


def test_help_explains_fields(capsys):
    with pytest.raises(SystemExit) as end:
        parse("--help")
    assert end.value.code in (0, None)
    out = capsys.readouterr().out
    assert "units per layer" in out
    assert "algo-env, other-env" in out


def test_differences_are_dotted():
    one, two = PRESETS["algo-env"], dataclasses.replace(PRESETS["algo-env"], seed=1, algo=Algo(0.5))
    assert cli.differences(one, two) == {"seed", "algo.gamma"}
    assert cli.differences(one, PRESETS["other-env"]) == {"preset", "algo"}
    assert Path("x") == dataclasses.replace(one, out=Path("x")).out
