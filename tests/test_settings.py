"""The tables of settings: what follows from a line of theirs, and what files of earlier versions
mean."""

import inspect
import re
from typing import get_args

import click
import pytest
from util import call

from fastrnn import settings
from fastrnn.captioning import CaptioningRNN
from fastrnn.captioning import settings as captioning
from fastrnn.cli import caption, classify, style, transfer
from fastrnn.cli.options import Command, options_of
from fastrnn.settings import REQUIRED, SHARE, SWITCH, Setting, completed, integer, one_of
from fastrnn.solver import Solver, SolverOptions
from fastrnn.text import settings as text
from fastrnn.text.estimator import TextClassifier
from fastrnn.vision.style import settings as painting
from fastrnn.vision.transfer import settings as transferring

TABLES = {
    "caption": (captioning.SETTINGS, caption.train),
    "classify": (text.SETTINGS, classify.train),
    "style": (painting.SETTINGS, style.command),
    "transfer": (transferring.SETTINGS, transfer.train),
}
# What the first version of each program had, in the order that checkpoints depend on.
FIRST = {
    "caption": "cell backend epochs hidden wordvec batch_size learning_rate lr_decay update_rule "
    "dropout clip_norm patience max_train pca seed",
    "classify": "model tokenizer ngrams min_count embeddings embedding_dim embedding_scale "
    "hidden_dim bidirectional pooling freeze dropout embedding_dropout word_dropout weight_decay "
    "learning_rate lr_decay update_rule clip_norm epochs batch_size patience class_weight ensemble "
    "dtype backend seed",
    "transfer": "backbone weights mode image_size views dropout epochs batch_size learning_rate "
    "layer_decay head_factor weight_decay label_smoothing warmup patience amp device workers seed",
}
SMALL = {
    "rate": Setting(0.5, SHARE, "A rate.", {"fast": 0.75, "slow": 0.25}),
    "size": Setting(3, integer(1), "A size.", heading="Model", earlier=2, resumable=True),
    "kind": Setting("a", one_of("a", "b"), "A kind.", earlier="b"),
    "deep": Setting(False, SWITCH, "Whether.", earlier=False),
    "inner": Setting(1.0, SHARE, "Nobody's.", heading="", earlier=1.0),
}


def test_given_come_before_tuned_come_before_defaults():
    defaults = {name: setting.default for name, setting in SMALL.items()}
    assert completed({}, SMALL) == completed({}, SMALL, ["other"]) == defaults
    found = completed({"size": 5}, SMALL, ["fast"])
    assert found == defaults | {"rate": 0.75, "size": 5}
    assert completed({"rate": 0.1}, SMALL, ["fast"])["rate"] == 0.1
    assert [*found] == [*SMALL]


@pytest.mark.parametrize("function", [completed, settings.recorded])
def test_what_is_no_setting_or_not_of_its_kind_is_refused(function):
    with pytest.raises(ValueError, match="^width: no such setting; there are rate, size, kind"):
        function({"rate": 0.5, "width": 1}, SMALL)
    with pytest.raises(ValueError, match="^size: expected an integer of at least 1, got 0"):
        function({"rate": 0.5, "size": 0}, SMALL)


def test_files_mean_what_they_meant_when_they_were_written():
    found = settings.recorded({"kind": "a", "rate": 0.1, "inner": 0.5}, SMALL)
    assert found == {"kind": "a", "rate": 0.1, "inner": 0.5, "size": 2, "deep": False}
    assert [*found][:3] == ["kind", "rate", "inner"]
    with pytest.raises(ValueError, match="^rate: missing"):
        settings.recorded({"size": 1}, SMALL)


def test_what_may_change_or_is_as_it_was_without_a_setting_decides_nothing():
    found = completed({}, SMALL)
    assert settings.decisive(found, SMALL) == {"rate": 0.5, "kind": "a"}
    assert settings.decisive(found | {"kind": "b", "deep": True}, SMALL) == {
        "rate": 0.5, "deep": True,
    }  # fmt: skip


def test_options_say_their_defaults_and_what_is_tuned(capsys):
    seen = {}

    @click.command(cls=Command)
    @options_of(SMALL, rate={"metavar": "R"})
    def command(**given):
        seen.update(given)

    command.main(["--deep", "--size", "4"], standalone_mode=False)
    assert seen == {"rate": None, "size": 4, "kind": None, "deep": True}
    command.main(["--help"], standalone_mode=False)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "--rate R A rate. [0.5, fast 0.75, slow 0.25]" in lines
    assert "--kind [a|b] A kind. [a]" in lines and "--deep / --no-deep Whether." in lines
    assert (
        lines.index("Training:") < lines.index("Model:") < lines.index("--size INTEGER A size. [3]")
    )


@pytest.mark.parametrize("program", TABLES)
def test_a_line_of_a_table_is_an_option(program):
    table, command = TABLES[program]
    options = {option.name: option for option in command.params}
    for name, setting in table.items():
        assert (name in options) == bool(setting.heading), name
        if setting.heading:
            assert options[name].heading == setting.heading, name
            assert options[name].help.startswith(setting.help), name


@pytest.mark.parametrize("program", TABLES)
def test_values_of_a_table_are_of_their_kinds(program):
    for name, setting in TABLES[program][0].items():
        values = [setting.default, *setting.tuned.values()]
        values += [] if setting.earlier is REQUIRED else [setting.earlier]
        for value in values:
            assert (program == "style" and value is None) or setting.kind.holds(value), name


@pytest.mark.parametrize("program", FIRST)
def test_settings_since_the_first_version_say_what_they_were_before(program):
    """And decide in the same order about what a checkpoint is of."""
    table, first = TABLES[program][0], FIRST[program].split()
    required = [name for name, setting in table.items() if setting.earlier is REQUIRED]
    assert sorted(required) == sorted(first)
    if program != "caption":  # whose checkpoints do not say what they are of
        assert required == first


def values_of(kind):
    """Types of its values, as annotations have them."""
    return {kind.values} if isinstance(kind.values, type) else {*map(type, kind.values)}


def test_every_setting_of_texts_is_a_parameter():
    own = {"early_stopping", "validation_fraction", "random_state"}
    model, *others = (name for name in text.SETTINGS if name != "seed")
    parameters = {**inspect.signature(TextClassifier).parameters}
    assert parameters.pop(model).default == text.SETTINGS[model].default
    assert [name for name in parameters if name not in own] == others
    for name in others:
        assert parameters[name].default is None
        types = values_of(text.SETTINGS[name].kind) | {type(None)}
        assert types <= {*get_args(parameters[name].annotation)}, name
    for name in TextClassifier().get_params():
        assert re.search(rf" {name},? ", TextClassifier.__doc__), name
    with pytest.raises(TypeError, match="unexpected keyword argument 'seed'"):
        TextClassifier(seed=1)


def test_every_setting_of_a_captioner_is_a_parameter():
    """All are off, or as they were before there was a setting."""
    parameters = inspect.signature(CaptioningRNN).parameters
    own = [*parameters][: [*parameters].index("dropout")]
    assert [*parameters] == [*own, *captioning.OF_MODEL, "backend", "seed", "params"]
    for name, setting in captioning.OF_MODEL.items():
        assert parameters[name].default == (0 if name == "dropout" else setting.earlier)
        assert {parameters[name].annotation} == values_of(setting.kind)
        assert CaptioningRNN.__annotations__[name] == parameters[name].annotation


def test_options_of_a_solver_are_its_parameters():
    parameters = inspect.signature(Solver).parameters.values()
    keywords = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keywords == SolverOptions.__annotations__


@pytest.mark.parametrize("program", ["caption", "classify", "transfer"])
def test_wrong_settings_are_wrong_usage(capsys, tmp_path, program):
    out, data = tmp_path / "run", tmp_path / "none"
    code, _, err = call(capsys, program, "train", data, "--dropout", 1, "--out", out)
    assert code == 2
    assert err.endswith("Error: dropout: expected a number in [0, 1), got 1.0\n")
    assert not out.exists()
