"""Taps: what is found in a network, what a place means in it, and which taps of two networks belong together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nets import Net, net
from torch import Tensor, nn
from transformers_nets import Bert, TorchEncoder, ViT, words

from edgepress.stages.distill.places import PLACES, blocks, stages
from edgepress.stages.distill.taps import classifier, heads_at, outline, resolve
from edgepress.stages.distill.watching import Place, answer, bare, still, watch
from edgepress.targets.errors import StageError

IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def pairs(student: nn.Module, teacher: nn.Module | None, place: str, x: Tensor = IMAGES) -> list[tuple[str, str]]:
    other = None if teacher is None else outline(teacher, x)
    return list(resolve(place, student=outline(student, x), teacher=other, loss="at"))


class Bottleneck(nn.Module):
    """As in ResNet-50: the first convolution of a stage still works at the size of the stage before."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, 4, 1)
        self.conv2 = nn.Conv2d(4, 4, 3, stride=stride, padding=1)
        self.conv3 = nn.Conv2d(4, outputs, 1)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv3(self.relu(self.conv2(self.relu(self.conv1(x))))) + self.shortcut(x))


class Excite(nn.Module):
    """Squeeze and excitation: maps of one pixel in the middle of a stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool, self.conv = nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(self.pool(x)).sigmoid()


class Staged(nn.Module):
    """Three stages of bottlenecks, excitation, pooling as a module, a head."""

    def __init__(self, *, deeper: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.layer1 = nn.Sequential(Bottleneck(6, 8, 1), Excite(8))
        self.layer2 = nn.Sequential(Bottleneck(8, 10, 2), Excite(10), Bottleneck(10, 10, 1))
        self.layer3 = nn.Sequential(Bottleneck(10, 12, 2), *[Bottleneck(12, 12, 1) for _ in range(deeper)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.layer3(self.layer2(self.layer1(self.stem(x))))).flatten(1))


class UNet(nn.Module):
    """Down and up again; its answer is a map."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.mask = nn.Conv2d(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask(self.up(F.relu(self.down2(F.relu(self.down1(x))))))


class Repeated(nn.Module):
    """One activation for three places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.relu, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.two(self.relu(self.one(x)))))


def test_an_outline_names_every_module_in_the_order_of_computing_with_its_shape() -> None:
    found = outline(net(), IMAGES)
    assert [tap.name for tap in found][:3] == ["stem", "bn", "block.conv1"]
    assert found[-1].name == ""
    assert found[-1].shape == (4,)
    assert {tap.name: tap.shape for tap in found}["block"] == (16, 8, 8)


def test_a_module_that_is_called_again_is_listed_again_and_can_be_tapped_by_its_number() -> None:
    torch.manual_seed(0)
    network, x = Repeated(), torch.randn(3, 4)
    assert [tap.name for tap in outline(network, x) if "relu" in tap.name] == ["relu", "relu#1"]
    feats = answer(network, x, ["relu#1", "two:in"]).feats
    torch.testing.assert_close(feats["two:in"], F.relu(network.one(x)))
    torch.testing.assert_close(feats["relu#1"], F.relu(network.two(feats["two:in"])))


def test_looking_at_a_network_changes_nothing_in_it() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 4))
    network.train()
    network[1].eval()  # frozen on purpose
    before, state = {key: value.clone() for key, value in network.state_dict().items()}, torch.get_rng_state()
    outline(network, IMAGES)
    assert [part.training for part in network] == [True, False, True, True, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_modes_come_back_even_after_an_error() -> None:
    network = net().train()

    def look() -> None:
        with still(network):
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        look()
    assert network.training


def test_stages_are_the_ends_of_stages_and_not_what_happens_to_have_their_size() -> None:
    assert [tap.name for tap in stages(outline(Staged(), IMAGES))] == ["layer1", "layer2", "layer3"]


def test_a_small_network_has_the_stage_that_it_has() -> None:
    assert [tap.name for tap in stages(outline(net(), IMAGES))] == ["block"]


def test_the_stages_of_a_u_net_go_down_and_up_and_leave_out_its_answer() -> None:
    assert [tap.name for tap in stages(outline(UNet(), IMAGES))] == ["down1", "down2", "up"]


def test_stages_are_paired_from_the_deep_end() -> None:
    flat = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 2, stride=2), nn.Flatten(), nn.Linear(96, 4))
    assert pairs(flat, Staged(), "@stages") == [("0", "layer2"), ("1", "layer3")]


def test_stages_are_paired_by_size_where_a_network_leaves_out_sizes_on_its_way_to_the_same_end() -> None:
    steep = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 4, stride=4), nn.Flatten(), nn.Linear(24, 4))
    assert pairs(steep, Staged(), "@stages") == [("0", "layer1"), ("1", "layer3")]


def test_one_pair_of_a_place_can_be_asked_for() -> None:
    assert pairs(Staged(), Staged(), "@stages#1") == [("layer2", "layer2")]
    assert pairs(Staged(), Staged(), "@stages#-1") == [("layer3", "layer3")]
    assert pairs(Staged(), Staged(), "@stages#-9") == [("layer1", "layer1")]
    with pytest.raises(StageError, match="there are 3 pairs"):
        pairs(Staged(), Staged(), "@stages#3")


def test_the_map_is_the_last_before_pooling_and_the_pool_what_the_classifier_is_given() -> None:
    assert pairs(Staged(), net(), "@map") == [("layer3", "block")]
    assert pairs(Staged(), net(), "@pool") == [("head:in", "head:in")]
    module = net()
    seen = answer(module, IMAGES, ["block", "head:in"]).feats
    torch.testing.assert_close(seen["head:in"], seen["block"].mean(dim=(2, 3)))


def test_before_activations_means_the_input_of_the_last_one_or_the_last_norm() -> None:
    assert pairs(Staged(), net(), "@preact#-1") == [("layer3.0.relu:in#2", "block.bn2")]


def test_what_an_activation_is_given_is_copied_where_it_writes_over_it() -> None:
    torch.manual_seed(0)
    network = Staged()
    seen = answer(network, IMAGES, ["layer3.0.relu:in#2", "layer3"]).feats
    assert (seen["layer3.0.relu:in#2"] < 0).any()
    torch.testing.assert_close(F.relu(seen["layer3.0.relu:in#2"]), seen["layer3"])


def test_a_tap_that_is_changed_in_place_says_what_to_do() -> None:
    with pytest.raises(StageError, match="its input, as in relu:in"):
        answer(Staged(), IMAGES, ["layer3.0.conv2"])


@pytest.mark.parametrize(
    ("network", "x"), [(ViT(), IMAGES), (Bert(depth=3), words()), (TorchEncoder(depth=3), words())]
)
def test_the_blocks_of_a_transformer_are_found(network: nn.Module, x: Tensor) -> None:
    found = blocks(outline(network, x))
    assert [tap.name[-1] for tap in found] == ["0", "1", "2"]
    assert len({tap.kind for tap in found}) == 1
    assert not blocks(outline(Staged(), IMAGES))


def test_hidden_layers_are_spread_evenly_with_the_last_on_the_last() -> None:
    student, teacher = ViT(depth=2), ViT(depth=6)
    assert pairs(student, teacher, "@hidden") == [("blocks.0", "blocks.2"), ("blocks.1", "blocks.5")]
    assert pairs(teacher, student, "@hidden") == [("blocks.2", "blocks.0"), ("blocks.5", "blocks.1")]
    assert pairs(ViT(depth=5), ViT(depth=7), "@edges") == [
        (f"blocks.{a}", f"blocks.{b}") for a, b in ((0, 0), (1, 1), (4, 6))
    ]


def test_the_stages_of_a_transformer_are_four_blocks_at_most() -> None:
    names = [tap.name for tap in stages(outline(ViT(depth=12), IMAGES))]
    assert names == ["blocks.2", "blocks.5", "blocks.8", "blocks.11"]


def test_embeddings_are_what_the_first_block_is_given() -> None:
    network = Bert()
    ((tap, _),) = pairs(network, network, "@embeddings", words())
    torch.testing.assert_close(answer(network, words(), [tap]).feats[tap], network.embeddings(words()))


def test_attention_gives_queries_and_keys_in_turn_whatever_they_are_called() -> None:
    found = outline(Bert(depth=2), words())
    attention = "encoder.layer.{}.attention.self"
    expected = [f"{attention.format(block)}.{word}" for block in (0, 1) for word in ("query", "key")]
    assert [mine for mine, _ in resolve("@att", student=found, teacher=found, loss="x")] == expected
    vit = outline(ViT(depth=2), IMAGES)
    assert [mine for mine, _ in resolve("@att#-1", student=vit, teacher=None, loss="x")] == [
        "blocks.1.attn.qkv:q",
        "blocks.1.attn.qkv:k",
    ]
    assert [mine for mine, _ in resolve("@qkv#0", student=vit, teacher=vit, loss="x")] == [
        f"blocks.0.attn.qkv:{side}" for side in "qkv"
    ]


def test_the_parts_of_a_fused_projection_are_its_thirds() -> None:
    network = ViT(depth=1)
    feats = answer(network, IMAGES, [f"blocks.0.attn.qkv{end}" for end in ("", ":q", ":k", ":v")]).feats
    whole = feats.pop("blocks.0.attn.qkv")
    torch.testing.assert_close(torch.cat(list(feats.values()), dim=2), whole)


def test_where_a_module_is_active_has_one_channel_and_length_one() -> None:
    conv, x = nn.Sequential(nn.Conv2d(3, 5, 1)), torch.randn(2, 3, 4, 6)
    with watch(conv, ("0", "0:attention")) as seen:
        conv(x)
    energy = seen["0"].square().mean(dim=1, keepdim=True)
    torch.testing.assert_close(seen["0:attention"], energy / energy.flatten(1).norm(dim=1).view(2, 1, 1, 1))
    tokens = nn.Sequential(nn.Linear(3, 5))
    with watch(tokens, ("0:attention",)) as seen:
        tokens(torch.randn(2, 7, 3))
    assert seen["0:attention"].shape == (2, 7, 1)
    with pytest.raises(StageError, match="0:attention needs positions"), watch(tokens, ("0:attention",)):
        tokens(torch.randn(2, 3))


@pytest.mark.parametrize("tap", ["layer3.0", "fc:in", "relu#2", "layer1:attention", "relu:attention#3", "attn:k"])
def test_a_tap_is_written_as_it_was_read(tap: str) -> None:
    assert str(Place.of(tap)) == tap


@pytest.mark.parametrize("batch_first", [True, False])
def test_queries_and_keys_of_torchs_attention_give_its_own_weights(batch_first: bool) -> None:
    torch.manual_seed(0)
    network = TorchEncoder(batch_first=batch_first).eval()
    found = outline(network, words())
    taps = [mine for mine, _ in resolve("@att#-1", student=found, teacher=None, loss="x")]
    feats = answer(network, words(), [*taps, "layers.1:in"]).feats
    attention = network.layers[1].self_attn
    given = feats["layers.1:in"]
    _, weights = attention(given, given, given, average_attn_weights=False)
    q, k = (feats[tap].unflatten(2, (2, 4)).transpose(1, 2) for tap in taps)
    torch.testing.assert_close((q @ k.transpose(2, 3) / 2).softmax(dim=3), weights)


def test_heads_are_told_by_the_attention_that_a_tap_belongs_to() -> None:
    assert heads_at(ViT(heads=3), "blocks.0.attn.qkv:q") == 3
    assert heads_at(Bert(heads=2), "encoder.layer.0.attention.self.query") == 2
    assert heads_at(TorchEncoder(heads=4), "layers.0.self_attn:k") == 4
    assert heads_at(net(), "block.conv1") is None


def test_wrappers_do_not_change_the_names() -> None:
    module = net()
    wrapped = nn.DataParallel(module)
    assert outline(wrapped, IMAGES) == outline(module, IMAGES)
    assert bare(wrapped) is module
    with watch(wrapped, ["block"]) as seen:
        wrapped(IMAGES)
    assert seen["block"].shape == (3, 16, 8, 8)
    compiled = torch.compile(module, backend="eager")
    assert bare(compiled) is module


@pytest.mark.parametrize(
    "place", [place for place in PLACES if place not in ("@hidden", "@att", "@qkv", "@embeddings", "@edges", "@norms")]
)
def test_a_loss_without_a_teacher_gets_taps_of_the_student_alone(place: str) -> None:
    found = pairs(Staged(), None, place)
    assert found
    assert all(theirs == "" for _, theirs in found)


def test_names_that_do_not_exist_are_refused_with_their_neighbours() -> None:
    with pytest.raises(StageError, match="the loss at: no place is called '@stage'; did you mean '@stages'"):
        pairs(net(), net(), "@stage")
    found = outline(net(), IMAGES)
    with pytest.raises(StageError, match="the teacher has no module 'blok' to tap; did you mean 'block'"):
        resolve([("block", "blok")], student=found, teacher=found, loss="at")
    with pytest.raises(StageError, match="'block:out' is no tap"):
        resolve("block:out", student=found, teacher=found, loss="at")
    assert resolve("block", student=found, teacher=found, loss="at") == (("block", "block"),)


def test_a_place_that_a_network_does_not_have_says_whose_and_what() -> None:
    with pytest.raises(StageError, match="the loss at: @hidden: the student has no transformer blocks"):
        pairs(net(), net(), "@hidden")
    with pytest.raises(StageError, match="the teacher has no linear layer"):
        pairs(net(), UNet(), "@pool")
    with pytest.raises(StageError, match="no attention"):
        pairs(net(), net(), "@att")
    with pytest.raises(StageError, match="2 transformer blocks"):
        pairs(ViT(depth=2), ViT(), "@edges")


def test_the_classifier_is_the_linear_layer_that_gives_the_answer() -> None:
    module = Net()
    assert classifier(module, IMAGES) == ("head", module.head)
    with pytest.raises(StageError, match="the network has no linear layer"):
        classifier(UNet(), IMAGES)
