"""`compress taps`: what a person sees of a network before naming places in it."""

from __future__ import annotations

import json
from pathlib import Path

import command
import pytest

from edgepress.pipeline import cli

NETS = """
import torch
from torch import nn

class Texts(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])

def texts():
    return Texts()

def colour():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    return command.run(capsys, "taps", *words)


def test_the_taps_of_a_network_are_printed_with_shapes_and_what_places_mean(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "nets.py:colour", "--input", "3x12x12")
    assert code == 0
    assert "6x6x6" in out
    assert "(its answer)" in out
    assert "6:in  6" in out
    assert "the model has no attention" in out
    assert "teacher" not in out


def test_json_names_the_pairs_that_losses_would_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "builtin:digits-teacher", "--student", "builtin:digits-student", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["places"]["@stages"]["pairs"] == [["fine", "fine"], ["coarse", "coarse"]]
    assert facts["places"]["@pool"]["pairs"] == [["head:in", "head:in"]]
    assert facts["places"]["@hidden"]["pairs"] == []
    assert "the student has no transformer blocks" in facts["places"]["@hidden"]["none"]
    shapes = {tap["name"]: tap["shape"] for tap in facts["student"]["taps"]}
    assert shapes["coarse"] == [128, 4, 4]
    assert facts["model"]["source"] == "builtin:digits-teacher"


def test_a_network_for_texts_is_given_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "nets.py:texts", "--input", "6", "--json")
    places = json.loads(out)["places"]
    assert code == 0
    assert places["@att"]["pairs"][:2] == [["layers.0.self_attn:q"], ["layers.0.self_attn:k"]]
    assert places["@hidden"]["pairs"] == [["layers.0"], ["layers.1"]]
    assert places["@embeddings"]["pairs"] == [["layers.0:in"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nets.py:colour"], "Say with --input what it takes, such as 3x32x32"),
        (["nets.py:colour", "--input", "4x12x12"], "Give another --input"),
        (["nets.py:colour", "--input", "3x12"], "not '3x12'"),
        (["nets.py:colour", "--input", "0x4x4"], "the shape of one image"),
        (["nets.py:color"], "did you mean 'colour'"),
        (["builtin:digits-techer"], "did you mean 'digits-teacher'"),
        (["builtin:digits-teacher", "--student", "nowhere.py:x"], "there is no file nowhere.py"),
        (["builtin:digits-teacher", "--classes", "many"], "not 'many'"),
    ],
)
def test_a_wrong_word_is_exit_code_2_and_a_message(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, _, said = run(capsys, *words)
    assert code == 2
    assert message in said


def test_an_error_is_json_too_where_json_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "nets.py:colour", "--json")
    assert code == 2
    assert json.loads(out)["exit_code"] == 2


def test_the_help_of_the_main_command_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "compress taps MODEL" in capsys.readouterr().out
