"""An exit that is kept: the network ends there, and stays so through the store, export and quantisation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from nets import Net, artifact, context, net
from torch import Tensor, nn

from edgepress.pipeline import recipe
from edgepress.pipeline.store import Store
from edgepress.stages.artifact import Artifact
from edgepress.stages.cutting import HEAD, AtExit, Cut, cut_at
from edgepress.stages.distill.exits import Exit, ExitShape
from edgepress.stages.distill.stage import Distill
from edgepress.stages.evaluation import accuracy
from edgepress.stages.improve import improve
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.prune import Prune
from edgepress.stages.pruning import count_macs, remove_channels
from edgepress.stages.quantization.prepare import prepare, rounded_layers
from edgepress.stages.quantization.scheme import Scheme
from edgepress.targets import profiles
from edgepress.targets.errors import RecipeError, StageError

STAGES = [["stem", ""], ["block", ""]]
IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SHAPE = ExitShape(channels=16, width=12, classes=4, halvings=1)


def distilled(tmp_path: Path, **changes: Any) -> Artifact:
    wanted = {"ce": 1, "byot": {"weight": 1, "taps": STAGES}}
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 32, "lr": 5e-3, "loss": wanted, "keep_exit": 1}
    made = improve(artifact(), context(tmp_path), stage="distill", lesson=Distill(**(settings | changes)))
    return replace(made, key="c" * 16)


def said(module: nn.Module) -> Tensor:
    with torch.no_grad():
        return module.eval()(IMAGES)  # type: ignore[no-any-return]


def test_a_network_that_was_cut_answers_as_its_exit_did() -> None:
    torch.manual_seed(0)
    whole, head = net(), Exit(SHAPE)
    at_exit = AtExit(whole, "stem", head).eval()
    short = cut_at(whole, at_exit.cut, head)
    torch.testing.assert_close(said(short), said(at_exit))
    assert isinstance(whole.block, nn.Module)  # the original is whole


def test_what_comes_after_the_exit_is_gone_and_the_rest_keeps_its_names() -> None:
    whole = net()
    short = cut_at(whole, Cut(tap="stem", head=SHAPE))
    names = [name for name in short.state_dict() if not name.startswith(HEAD)]
    assert names == ["stem.weight"]
    deeper = cut_at(whole, Cut(tap="block", head=SHAPE))
    kept = [name for name in deeper.state_dict() if not name.startswith(HEAD)]
    assert kept == [name for name in whole.state_dict() if not name.startswith("head")]
    assert count_macs(short, IMAGES[:1]) < count_macs(whole, IMAGES[:1])


def test_an_exit_is_trained_chosen_by_its_own_figure_and_kept(tmp_path: Path) -> None:
    made, surroundings = distilled(tmp_path), context(tmp_path)
    figure = accuracy(made.module, surroundings.data.val, surroundings.data.preprocessing)
    metrics = made.records[-1].metrics
    assert metrics["validation_accuracy"] == figure == max(made.records[-1].curves["validation"])
    assert figure > 40  # chance is 25, and one layer of 16 channels is all that is left
    assert made.cut is not None
    assert made.cut.tap == "stem"
    assert not made.is_original
    assert isinstance(made.original.module, Net)


def test_a_cut_network_comes_back_from_the_store(tmp_path: Path) -> None:
    made, store = distilled(tmp_path / "work"), Store(tmp_path / "store")
    store.save("distill", made)
    back = store.load("distill", made.key, artifact(), {"model": lambda: net(seed=9)})
    assert back is not None
    assert back.cut == made.cut
    torch.testing.assert_close(said(back.module), said(made.module), rtol=0, atol=0)


def test_a_cut_network_can_be_pruned_and_stored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cut = Cut(tap="block", head=SHAPE)
    parent = replace(artifact(), module=cut_at(net(), cut), cut=cut)
    module, _ = remove_channels(parent.module, IMAGES[:1], Prune(ratio=0.5), multiple=2)
    assert count_macs(module, IMAGES[:1]) < count_macs(parent.module, IMAGES[:1])
    made = replace(distilled(tmp_path), module=module, cut=cut)
    store = Store(tmp_path / "store")
    store.save("distill", made)
    back = store.load("distill", made.key, artifact(), {"model": net})
    assert back is not None
    torch.testing.assert_close(said(back.module), said(module), rtol=0, atol=0)


def test_a_cut_network_is_exported_without_what_was_cut(tmp_path: Path) -> None:
    torch.manual_seed(0)
    short, path = cut_at(net(), Cut(tap="stem", head=SHAPE)), tmp_path / "short.onnx"
    written = write_onnx(short, path, example=IMAGES, opset=17, dynamic_batch=False, metadata={})
    kinds = [node.op_type for node in written.graph.node]
    assert kinds.count("Conv") == 4  # the stem, two of the halving, one to the width
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": IMAGES[:1].numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), said(short)[:1], rtol=1e-4, atol=1e-5)


def test_a_cut_network_can_be_quantised() -> None:
    torch.manual_seed(0)
    short = cut_at(net(), Cut(tap="block", head=SHAPE))
    rounded = prepare(short, Scheme(flavour="openvino"))
    assert f"{HEAD}.classifier" in rounded_layers(rounded)
    assert "block.conv1" in rounded_layers(rounded)


class Branches(nn.Module):
    """What torch cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        passed: Tensor = self.stem(x if x.sum() > 0 else -x)
        return passed


def test_a_network_that_cannot_be_cut_says_so() -> None:
    with pytest.raises(StageError, match="Leave out keep_exit"):
        cut_at(Branches(), Cut(tap="stem", head=SHAPE))


def test_an_exit_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="keep_exit 3: the student has 1 exits, at stem"):
        distilled(tmp_path, keep_exit=3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("keep_exit: 1", "loss has no byot"),
        ("keep_exit: 1, peers: 2, loss: {byot: 1}", "keep_exit is for a single student"),
        ("peer_inputs: crossed", "is for 2 peers, and peers is 1"),
        ("peer_inputs: crossed, peers: 2, attack: {steps: 3}", "leave out one of the two"),
        ("attack: {epsilon: 8/0}", "attack.epsilon"),
    ],
)
def test_schemes_that_do_not_go_together_are_refused_by_the_recipe(settings: str, words: str) -> None:
    text = f"model: a.py:b\ndata: imagefolder:x\ndistill: {{{settings}}}\n"
    with pytest.raises(RecipeError, match=words):
        recipe.load(text, origin="job.yaml")


def test_a_student_that_teaches_itself_is_no_reason_to_skip_the_stage() -> None:
    profile = profiles.load("onnxruntime-cpu")
    assert Distill().skip_reason(profile, alone=True) is not None
    assert Distill(loss={"pskd": 1}).skip_reason(profile, alone=True) is None
    assert Distill(peers=2).skip_reason(profile, alone=True) is None
