"""What the README shows is true: its commands parse, its recipe holds, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from nets import net, stripes

from edgepress.pipeline import cli, plan, recipe
from edgepress.targets import profiles

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NETWORK = """
import torch

class Net(torch.nn.Conv2d):
    def forward(self, x):
        return super().forward(x).flatten(1)

def make():
    return Net(3, 4, 32)
"""
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def commands() -> list[str]:
    """Every `compress ...` in the README, from blocks and from running text."""
    lines = [line for text in blocks("sh") for line in text.replace("\\\n", " ").split("&&")]
    lines += re.findall(r"`(compress [^`]*)`", README)
    return [line.strip() for line in lines if line.strip().startswith("compress")]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(blocks("yaml")[0])  # what `compress job.yaml` and `compress check` read
    (tmp_path / "net.py").write_text(NETWORK)  # a plan without data looks at it
    torch.save(torch.nn.Conv2d(3, 4, 32).state_dict(), tmp_path / "net.pt")
    words = shlex.split(command)[1:]
    if words[0] in cli.COMMANDS:
        if words[0] in ("targets", "schema", "check"):
            assert cli.main(words) == 0
        else:
            with pytest.raises(SystemExit) as caught:
                cli.main([words[0], "--help"])
            assert caught.value.code == 0
    elif words != ["--help"]:
        assert cli.main([*words, "--dry-run"]) == 0


def test_the_recipe_holds() -> None:
    planned = plan.make(recipe.load(blocks("yaml")[0], origin="README"))
    assert [entry.name for entry in planned.stages] == ["distill", "prune", "quantize", "export", "profile"]


@pytest.mark.parametrize("page", ["README.md", "docs/distillation.md"])
def test_every_line_of_a_recipe_holds(page: str) -> None:
    """The first block of the README is a whole job, every other line stands for itself."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[page == "README.md" :]
    lines = [line for block in found for line in re.split(r"\n(?=\w)", block.strip())]
    assert lines
    job = "model: {source: net.py:make, weights: net.pt}\ndata: imagefolder:pictures\n"
    for line in lines:
        plan.make(recipe.load(job + line, origin=f"{page}: {line}"))


@pytest.mark.slow
def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = stripes(128, seed=0)
    test_images, test_labels = stripes(128, seed=1)
    names = {"network": net(width=32), "images": images, "labels": labels, "test_images": test_images, "test_labels": test_labels}  # fmt: skip
    (code,) = blocks("python")
    exec(compile(code, "README", "exec"), names)
    assert "compressed" in capsys.readouterr().out


def test_the_table_of_targets_is_the_list_of_profiles() -> None:
    table = README.partition("| targets |")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines()[2:] for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(profiles.names())


def test_the_exit_codes_are_those_of_the_help() -> None:
    words = " ".join(README.split())
    for meaning in (
        "2 wrong recipe or arguments",
        "3 a runtime is missing",
        "4 budget missed",
        "5 a stage failed",
        "130 stopped",
    ):
        assert meaning in words
        assert meaning.split(" ", 1)[1].split()[0] in " ".join(cli.EPILOG.split())
