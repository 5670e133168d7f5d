"""Heads of torch's own attention and of BERT's go whole, layers of BERT too, and what is left is stored as data."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import artifact
from probers import FakeProber
from test_pruning import EXAMPLE, answer
from test_slimming_search import facts_of, surroundings
from torch import Tensor, nn
from transformers_nets import TorchEncoder, words

from edgepress.stages.export import Export
from edgepress.stages.exporting import export
from edgepress.stages.prune import Prune
from edgepress.stages.pruning import count_macs, prune
from edgepress.stages.quantization.qat import quantize
from edgepress.stages.quantize import Quantize
from edgepress.stages.slimming.cutting import slim
from edgepress.stages.slimming.groups import find_groups
from edgepress.stages.structure import resize_, structure
from edgepress.stages.unpacking import Unpacked, unpacked

HERE = importlib.util.find_spec("transformers") is not None


def encoder(*, batch_first: bool = True) -> TorchEncoder:
    torch.manual_seed(0)
    return TorchEncoder(width=16, depth=2, heads=4, batch_first=batch_first).eval()


PADDING = torch.arange(5).expand(5, 5) >= 3
CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "told",
    [
        {},
        {"need_weights": False},
        {"key_padding_mask": PADDING},
        {"attn_mask": CAUSAL, "average_attn_weights": False},
        {"attn_mask": -9.0 * CAUSAL, "key_padding_mask": -9.0 * PADDING},
    ],
    ids=["plain", "no weights", "padding", "causal", "numbers"],
)
def test_an_unpacked_attention_answers_as_torch_s_does(batch_first: bool, told: dict[str, Any]) -> None:
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(16, 4, batch_first=batch_first).eval()
    with torch.no_grad():
        packed.in_proj_bias.normal_()
        mine, batch = Unpacked(packed).eval(), torch.randn(5, 5, 16)
        found, wanted = (one(batch, batch, batch, **told) for one in (mine, packed))
        alone = [one(batch[0], batch[0], batch[0])[0] for one in (mine, packed)]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*alone, atol=1e-5, rtol=1e-5)


def test_other_widths_of_keys_and_values_are_unpacked_too() -> None:
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(16, 4, kdim=6, vdim=10, bias=False, batch_first=True).eval()
    given = torch.randn(2, 3, 16), torch.randn(2, 5, 6), torch.randn(2, 5, 10)
    with torch.no_grad():
        torch.testing.assert_close(Unpacked(packed).eval()(*given)[0], packed(*given)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_heads_of_torch_s_attention_go_whole_and_the_rest_is_stored_as_data(batch_first: bool) -> None:
    module = encoder(batch_first=batch_first)
    whole = unpacked(module, words())
    torch.testing.assert_close(answer(whole, words()), answer(module, words()), atol=1e-5, rtol=1e-5)
    assert module.layers[0].self_attn.in_proj_weight is not None, "the given network is left alone"
    groups = find_groups(whole, words(), multiple=4)
    assert groups.found["layers.0.self_attn.heads"].widths == (3, 2, 1)
    small = slim(whole, groups.found.values(), {"layers.0.self_attn.heads": [1, 3]})
    assert small.layers[0].self_attn.num_heads == 2
    with torch.no_grad():
        module.layers[0].self_attn.out_proj.weight[:, [*range(4), *range(8, 12)]] = 0
    torch.testing.assert_close(answer(small, words()), answer(module, words()), atol=1e-5, rtol=1e-5)
    again = encoder(batch_first=batch_first)
    resize_(again, json.loads(json.dumps(structure(small))))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(answer(again.eval(), words()), answer(small, words()), rtol=0, atol=0)


def test_what_cannot_be_unpacked_stays_as_it_is() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x[:, 0]
            mask = torch.zeros(2 * len(x), 8, 8)  # one for each head
            return self.head(self.attention(x, x, x, attn_mask=mask)[0].mean(dim=1))

    module = Masked().eval()
    images = torch.rand(3, 1, 8, 8)
    assert unpacked(module, images) is module
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    assert unpacked(plain, images) is plain


def test_the_work_of_torch_s_attention_is_counted() -> None:
    module = encoder()
    length, width = words().shape[1], 16
    projections = 2 * length * 4 * width * width  # two layers
    assert count_macs(module, words(1)) == projections + 2 * length * 2 * width * 16 + width * 4


class Pictures(nn.Module):
    """Rows of a picture are its words."""

    def __init__(self, width: int = 32, *, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.layer = nn.TransformerEncoderLayer(width, heads, 64, batch_first=True)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x[:, 0])).mean(dim=1))


def test_a_network_with_torch_s_attention_is_pruned_to_a_budget_and_loses_heads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Pictures().eval()
    given = copy.deepcopy(module.state_dict())

    def law(model: Any) -> float:
        """Time goes with the weights of the attention alone."""
        sizes = [list(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 2]
        return 100.0 + sum(a * b for a, b in sizes if 64 not in (a, b))

    around = surroundings(tmp_path / "work", FakeProber(law=law), speedup=1.3)
    found = prune(Prune(epochs=0), artifact(module), around)
    facts = facts_of(found)
    assert facts["met"]
    assert facts["groups"]["layer.self_attn.heads"] == 4
    for name, value in module.state_dict().items():
        assert torch.equal(value, given[name])
    files = export(Export(), quantize(Quantize(epochs=0, calibration=64), found, around), around).files
    assert [file.variant for file in files] == ["baseline", "baseline-int8", "pruned", "int8"]
    assert all(file.parity["ok"] for file in files if file.precision == "fp32")


class SelfAttention(nn.Module):
    """As transformers writes BERT's: what makes the heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, width // heads
        self.all_head_size = width
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        asked, known, told = (
            layer(x).unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = (asked @ known.transpose(-1, -2) / self.attention_head_size**0.5).softmax(-1)
        return (weights @ told).transpose(1, 2).flatten(2)


class SelfOutput(nn.Module):
    """And what reads them, in a module beside it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: Tensor, around: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + around)


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads), "output": SelfOutput(width)})
        self.intermediate, self.dense = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.LayerNorm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, cache: object = None) -> Tensor:
        x = self.attention["output"](self.attention["self"](x), x)
        return self.LayerNorm(x + self.dense(self.intermediate(x).relu()))


class Bert(nn.Module):
    def __init__(self, width: int = 16, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.embed, self.LayerNorm = nn.Linear(8, width), nn.LayerNorm(width)
        self.layer = nn.ModuleList(BertLayer(width, heads) for _ in range(depth))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.LayerNorm(self.embed(x[:, 0]))
        for layer in self.layer:
            x = layer(x, None, cache=None)
        return self.head(x[:, 0])


def test_heads_that_are_read_in_the_module_beside_go_whole() -> None:
    torch.manual_seed(0)
    module = Bert().eval()
    groups = find_groups(module, EXAMPLE, multiple=4, blocks=False)
    assert {f"layer.{number}.attention.self.heads" for number in range(3)} <= set(groups.found)
    small = slim(module, groups.found.values(), {"layer.1.attention.self.heads": [0, 3]})
    part = small.get_submodule("layer.1.attention.self")
    assert (part.num_attention_heads, part.all_head_size, part.attention_head_size) == (2, 8, 4)
    with torch.no_grad():
        module.get_submodule("layer.1.attention.output.dense").weight[:, 4:12] = 0
    torch.testing.assert_close(answer(small), answer(module), atol=1e-5, rtol=1e-5)


def test_layers_that_normalise_what_goes_around_them_are_blocks() -> None:
    torch.manual_seed(0)
    module = Bert().eval()
    with torch.no_grad():
        for norm in (one for one in module.modules() if isinstance(one, nn.LayerNorm)):
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.uniform_(-0.5, 0.5)
    groups = find_groups(module, EXAMPLE, multiple=4)
    assert {name for name, group in groups.found.items() if group.is_block} == {"layer.0", "layer.1", "layer.2"}
    small = slim(module, groups.found.values(), {"layer.1": []})
    module.layer = nn.ModuleList([module.layer[0], module.layer[2]])
    torch.testing.assert_close(answer(small), answer(module), atol=0, rtol=0)


@pytest.mark.skipif(not HERE, reason="transformers is not installed (the extra `transformers`)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_encoders_of_transformers_lose_heads_width_and_layers(kind: str) -> None:
    from test_huggingface import KINDS, made, texts

    torch.manual_seed(0)
    module = made(kind, **KINDS[kind])
    groups = find_groups(module, texts(2), multiple=8)
    heads = [name for name in groups.found if name.endswith(".heads")]
    blocks = [name for name, group in groups.found.items() if group.is_block]
    wide = [name for name, group in groups.found.items() if group.width == 64]
    assert (len(heads), len(blocks), len(wide)) == (2, 2, 2)
    kept = {heads[0]: [1, 2], blocks[1]: [], wide[0]: range(32)}
    small = slim(module, groups.found.values(), kept)
    assert answer(small, texts()).shape == (16, 3)
    again = made(kind, **KINDS[kind])
    resize_(again, json.loads(json.dumps(structure(small))))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(answer(again.eval(), texts()), answer(small, texts()), rtol=0, atol=0)
