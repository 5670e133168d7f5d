"""Losses on features in whole networks: who gets gradients, what stays behind, and losses that look at weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import context, net
from steps import batch, noise, objective_and_step, stages, step_of, term_for, value, wired
from torch import Tensor, nn
from transformers_nets import ViT

from edgepress.stages.distill.flow import hold
from edgepress.stages.distill.losses import LOSSES, make
from edgepress.stages.distill.nouns import Batch
from edgepress.stages.distill.sources import Frozen
from edgepress.stages.evaluation import accuracy
from edgepress.stages.lesson import Lesson
from edgepress.stages.onnx_file import write_onnx
from edgepress.stages.teaching import teach
from edgepress.targets.errors import RecipeError, StageError

FAMILIES = ("features", "boundaries", "attention", "flow", "fusion", "generation", "reuse", "spots", "classwise")
NAMES = [name for name, place in LOSSES.items() if place.partition(":")[0] in FAMILIES]
OFFERED = [name for name in NAMES if name != "vitkd"]  # which wants blocks


def lesson(name: str, *, ce: float = 1.0, weight: float = 1.0, **changes: Any) -> Lesson:
    loss = {"ce": {"weight": ce}, name: {"weight": weight}}
    return Lesson(**{"epochs": 1, "batch_size": 32, "lr": 3e-3, "weight_decay": 0.0, "loss": loss} | changes)


@pytest.mark.parametrize("name", OFFERED)
def test_a_loss_teaches_the_student_and_leaves_the_teacher_alone(name: str) -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    before = copy.deepcopy(teacher.state_dict())
    objective, step = objective_and_step(name, student, teacher, batch())
    total, _ = objective(step)
    total.backward()
    assert torch.isfinite(total)
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    for network in (student, teacher):
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


@pytest.mark.parametrize("name", OFFERED)
def test_a_loss_of_enormous_features_is_finite(name: str) -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    objective, step = objective_and_step(name, student, teacher, batch())
    for said in (step.student, step.teachers["t"]):
        for feature in (*said.feats.values(), said.logits):
            feature.data.mul_(1e4)
    total, _ = objective(step)
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", OFFERED)
def test_what_a_loss_creates_depends_on_the_seed_and_survives_a_checkpoint(name: str) -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    once, again = (wired(name, student, teacher, batch()).state_dict() for _ in range(2))
    assert all(torch.equal(value, again[key]) for key, value in once.items())
    assert not any(value.is_complex() for value in once.values())
    fresh = wired(name, student, teacher, batch(), seed=1)
    drawn = [key for key, value in once.items() if not torch.equal(value, fresh.state_dict()[key])]
    assert drawn or not any(value.is_floating_point() and value.ndim > 1 for value in once.values())
    fresh.load_state_dict(once)


@pytest.mark.parametrize("power", [2.0, 1.0])
def test_attention_reads_one_number_for_each_position_where_both_have_the_same(power: float) -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    objective, step = objective_and_step("at", student, teacher, batch(), options={"power": power})
    read = step.teachers["t"].feats
    assert {name.rpartition(":")[2] == "attention" for name in read} == {power == 2.0}
    assert all(value.shape[1] == 1 for value in read.values()) or power != 2.0
    pairs = [(mine, theirs.partition(":")[0]) for mine, theirs in objective.parts[0].term.pairs]
    whole = Frozen(teacher, taps=[theirs for _, theirs in pairs]).see(step.batch).feats
    features = [(step.student.feats[mine], whole[theirs]) for mine, theirs in pairs]
    torch.testing.assert_close(objective(step)[0], value("at", features, power=power))


def test_attention_reads_whole_features_where_positions_have_to_meet() -> None:
    student, teacher = ViT(depth=2).eval(), stages(6, 8, 10, seed=1)
    _, step = objective_and_step("at", student, teacher, batch())
    assert not any("attention" in name for name in step.teachers["t"].feats)


def test_losses_between_a_transformer_and_a_convolutional_network_find_each_other() -> None:
    for name in ("hint", "at", "vid", "mgd", "reviewkd", "afd"):
        objective, step = objective_and_step(name, stages(4, 6), ViT(depth=2).eval(), batch())
        total, _ = objective(step)
        total.backward()
        assert torch.isfinite(total)


@pytest.mark.parametrize("name", ["at", "hint", "ofd", "reviewkd", "sakd", "simkd"])
def test_nothing_is_left_in_a_student_that_was_taught(name: str, tmp_path: Path) -> None:
    student, teacher = net(), net(seed=1, width=24)
    plain = copy.deepcopy(student)
    teach(student, lesson(name), context(tmp_path), teacher=teacher)
    assert list(student.state_dict()) == list(plain.state_dict())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in student.modules())
    counts = []
    for module in (plain, student):
        example = torch.zeros(1, 1, 8, 8)
        written = write_onnx(module, tmp_path / "x.onnx", example=example, opset=17, dynamic_batch=False, metadata={})
        counts.append(len(written.graph.node))
    assert counts[0] == counts[1]


def test_a_student_with_its_teachers_classifier_answers_as_the_folded_weights_say(tmp_path: Path) -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    objective, _ = objective_and_step("simkd", student, teacher, batch())
    term = objective.terms["simkd"]
    objective.settle(student)
    student.eval()
    x = batch().x
    embedding = x
    for stage in student.stages:
        embedding = stage(embedding)
    by_hand = teacher.head(term.projector(embedding.mean(dim=(2, 3))))
    torch.testing.assert_close(student(x), by_hand)


def test_a_reused_classifier_makes_a_student_that_imitates_features_right(tmp_path: Path) -> None:
    surroundings = context(tmp_path)
    teacher, student = net(seed=1, width=24), net()
    teach(teacher, lesson("ce", epochs=8, loss={"ce": 1}), context(tmp_path / "teacher"), teacher=None)
    data = surroundings.data
    before, goal = (accuracy(one, data.val, data.preprocessing) for one in (student, teacher))
    teach(student, lesson("simkd", ce=0.0, weight=1.0, epochs=8), surroundings, teacher=teacher)
    after = accuracy(student, data.val, data.preprocessing)
    assert goal > 80
    assert after > (before + goal) / 2


def test_a_classifier_that_sees_no_mean_of_the_map_is_not_reused() -> None:
    flat = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4))
    with pytest.raises(StageError, match="the loss simkd: the student's classifier 3 is given something else"):
        wired("simkd", flat, stages(4, 8), batch(), taps="@map")
    objective, step = objective_and_step("simkd", stages(4, 6, 8), stages(4, 8), batch(), taps="@map")
    assert torch.isfinite(objective(step)[0])
    with pytest.raises(StageError, match="4 classes apart, the teacher 7"):
        wired("simkd", stages(4, 8), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 7)), batch())


def test_class_activation_maps_are_classifier_weights_times_features() -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    objective, step = objective_and_step("cam", student, teacher, batch())
    (mine, theirs) = objective.terms["cam"].pairs[0]
    maps = []
    for feature, head in ((step.student.feats[mine], student.head), (step.teachers["t"].feats[theirs], teacher.head)):
        one = np.einsum("kc,bchw->bkhw", head.weight.detach().numpy(), feature.detach().numpy()).reshape(6, 4, -1)
        maps.append(one / np.linalg.norm(one, axis=2, keepdims=True))
    assert objective(step)[0].item() == pytest.approx(np.mean((maps[0] - maps[1]) ** 2), rel=1e-4)
    assert objective.terms["cam"].state_dict() == {}  # the teacher's weights are no part of a checkpoint


def test_class_attention_is_compared_in_two_by_two_cells() -> None:
    student, teacher = stages(4, 6), stages(6, 8, seed=1)
    objective, step = objective_and_step("catkd", student, teacher, batch())
    (mine, theirs) = objective.terms["catkd"].pairs[0]
    maps = [
        F.conv2d(F.avg_pool2d(feature, 2), head.weight[:, :, None, None])
        for feature, head in (
            (step.student.feats[mine], student.head),
            (step.teachers["t"].feats[theirs], teacher.head),
        )
    ]
    torch.testing.assert_close(objective(step)[0], F.mse_loss(maps[0], maps[1]))
    scaled = make("catkd", {"scaled": True})
    assert scaled.scaled


def test_a_map_that_the_classifier_does_not_weigh_is_refused() -> None:
    with pytest.raises(StageError, match="weighs 8 channels and stages.0 has 4"):
        wired("cam", stages(4, 8), stages(4, 8), batch(), taps="stages.0")


def test_label_wise_distances_against_loops() -> None:
    student, teacher = stages(4, 6), stages(6, 8, seed=1)
    labels = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]).float()
    given = Batch(x=batch().x, y=labels)
    objective, step = objective_and_step("l2d", student, teacher, given)
    embeddings = []
    for said, head in ((step.student, student.head), (step.teachers["t"], teacher.head)):
        f = said.feats["head:in"].detach()
        embeddings.append(torch.einsum("kc,bc->bkc", head.weight.detach(), f))
        torch.testing.assert_close(embeddings[-1].sum(dim=2) + head.bias.detach(), said.logits.detach())

    def huber(groups: list[list[Tensor]]) -> float:
        both = []
        for members in groups:
            apart = torch.stack([torch.stack([(a - b).norm() for b in members]) for a in members])
            both.append(apart / apart[apart > 0].mean())
        return float(F.smooth_l1_loss(both[0], both[1], reduction="sum")) / len(groups[0])

    by_class = sum(
        huber([[e[b, k] for b in range(6) if labels[b, k]] for e in embeddings])
        for k in range(4)
        if labels[:, k].sum() > 1
    )
    by_sample = sum(
        huber([[e[b, k] for k in range(4) if labels[b, k]] for e in embeddings])
        for b in range(6)
        if labels[b].sum() > 1
    )
    p, q = step.teachers["t"].logits.sigmoid(), step.student.logits.detach().sigmoid()
    apart = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(dim=1).mean()
    expected = 10 * float(apart) + (100 * by_class + 1000 * by_sample) / 6
    assert objective(step)[0].item() == pytest.approx(expected, rel=1e-3)


def test_the_matching_of_stages_is_a_choice_among_the_students_for_each_of_the_teachers() -> None:
    pairs = [(noise(4, 3, 8, 8), noise(4, 5, 8, 8, seed=1)), (noise(4, 6, 4, 4, seed=2), noise(4, 7, 4, 4, seed=3))]
    term = term_for("afd", pairs, width=16)
    weights = term.weights(pairs).detach()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(4, 2))
    total = 0.0
    for t, (_, theirs) in enumerate(pairs):
        wanted = theirs.square().mean(1)
        for s, (mine, _) in enumerate(pairs):
            found = F.adaptive_avg_pool2d(mine.square().mean(1), wanted.shape[1:])
            for b in range(4):
                apart = (found[b] / found[b].norm() - wanted[b] / wanted[b].norm()).square().mean()
                total += float(weights[b, t, s] * apart) / 4
    assert term(step_of(pairs)).item() == pytest.approx(total, rel=1e-4)


def test_masked_generation_hides_that_share_and_asks_for_all_of_the_teacher() -> None:
    pairs = [(noise(4, 5, 8, 8), noise(4, 5, 8, 8, seed=1))]
    term = term_for("mgd", pairs, ratio=1e-9)
    term.generators[0] = nn.Identity()
    torch.testing.assert_close(term(step_of(pairs)), (pairs[0][0] - pairs[0][1]).square().sum() / 4)
    ones, nothing = torch.ones(50, 40, 4, 4), torch.zeros(50, 40, 4, 4)
    for hide in ("channels", "positions"):
        term = term_for("mgd", [(ones, nothing)], ratio=0.3, hide=hide)
        term.generators[0] = nn.Identity()
        kept = term(step_of([(ones, nothing)])).item() / ones[0].numel()
        assert kept == pytest.approx(0.7, abs=0.06)
    with pytest.raises(RecipeError, match="ratio"):
        make("mgd", {"ratio": 1.0})
    with pytest.raises(RecipeError, match="'pixels'"):
        make("mgd", {"hide": "pixels"})


def test_vit_distillation_mimics_the_first_blocks_and_makes_the_hidden_patches_of_the_last() -> None:
    pairs = [(noise(2, 17, 6, seed=i), noise(2, 17, 6, seed=i + 5)) for i in range(3)]
    mimicked = sum((s - t).square().sum() for s, t in pairs[:2]) / 2
    torch.testing.assert_close(value("vitkd", pairs, shallow=0.5, deep=0.0), 0.5 * mimicked)
    term = term_for("vitkd", pairs, shallow=0.0, deep=1.0)
    term.generator = nn.Identity()
    term.token.data.fill_(7.0)
    torch.manual_seed(5)
    found = term(step_of(pairs)).item()
    torch.manual_seed(5)
    order = torch.rand(2, 16).argsort(dim=1)
    hidden = (order >= 8).float()
    assert hidden.sum().item() == 16  # half of 2 x 16
    expected = ((7.0 - pairs[2][1][:, 1:]).square() * hidden[:, :, None]).sum() / 2 / 0.5
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_vit_distillation_finds_its_blocks(tmp_path: Path) -> None:
    student, teacher = ViT(width=12, depth=3).eval(), ViT(width=18, depth=5).eval()
    objective, step = objective_and_step("vitkd", student, teacher, batch())
    assert [theirs for _, theirs in objective.terms["vitkd"].pairs] == ["blocks.0", "blocks.1", "blocks.4"]
    objective(step)[0].backward()
    assert student.blocks[2].mlp[0].weight.grad is not None


def test_stages_are_learned_one_after_the_other_and_then_nothing() -> None:
    term = make("indistill", {"share": 0.5})
    term.pairs = (("a", "a"), ("b", "b"), ("c", "c"))
    seen = [term.stage(progress) for progress in (0.0, 0.12, 0.13, 0.29, 0.3, 0.49, 0.5, 1.0)]
    assert seen == [0, 0, 1, 1, 2, 2, None, None]  # 3, 4 and 5 of 12 parts of one half


def test_in_distillation_keeps_the_teachers_most_active_channels() -> None:
    teacher = noise(4, 5, 4, 4) * torch.tensor([1.0, 9.0, 0.1, 5.0, 2.0]).view(1, 5, 1, 1)
    student = noise(4, 2, 4, 4, seed=1)
    torch.testing.assert_close(value("indistill", [(student, teacher)]), F.mse_loss(student, teacher[:, [1, 3]]))
    over = value("indistill", [(student, teacher)], progress=0.9)
    assert over.item() == 0.0
    with pytest.raises(StageError, match="nothing can be pruned"):
        value("indistill", [(teacher, student)])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_while_a_stage_learns_those_before_it_get_no_gradient(precision: str) -> None:
    student, teacher = stages(4, 6, 8), stages(4, 6, 8, seed=1)
    for phase in range(4):
        student.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            objective, step = objective_and_step("stagewise", student, teacher, batch(), progress=phase / 4)
        total, _ = objective(step)
        total.backward()
        reached = [
            any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in part.parameters())
            for part in (*student.stages, student.head)
        ]
        assert reached == [place == phase for place in range(4)]
    torch.testing.assert_close(total, F.cross_entropy(step.student.logits, step.labels()))


def test_a_feature_that_is_held_lets_nothing_through_and_a_leaf_does_not_mind() -> None:
    x = noise(3).requires_grad_()
    y = x * 2
    hold(y)
    (y.square().sum() + x.sum()).backward()
    torch.testing.assert_close(x.grad, torch.ones(3))
    hold(noise(2))


def test_a_policy_decides_for_each_sample_and_learns_from_the_routed_network_alone() -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    objective, step = objective_and_step("sakd", student, teacher, batch(8))
    term = objective.terms["sakd"]
    choices = term.choose(step)
    assert choices.shape == (8, 3, 2)
    torch.testing.assert_close(choices.sum(dim=2), torch.ones(8, 3))
    assert set(choices.unique().tolist()) <= {0.0, 1.0}
    modes = [part.training for part in student.modules()]
    buffers = {name: value.clone() for name, value in student.named_buffers()}
    F.cross_entropy(term.route(step, choices), step.labels()).backward()
    assert all(p.grad is None for p in student.parameters())
    assert bool(term.policy.weight.grad.abs().sum() > 0)
    assert modes == [part.training for part in student.modules()]
    assert all(torch.equal(value, buffers[name]) for name, value in student.named_buffers())


def test_a_route_without_the_teacher_is_the_student_and_one_with_it_begins_at_the_teachers_features() -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    objective, step = objective_and_step("sakd", student, teacher, batch(8))
    objective.eval()
    term = objective.terms["sakd"]
    nobody = torch.zeros(8, 3, 2)
    torch.testing.assert_close(term.route(step, nobody), student.eval()(step.batch.x))
    nobody[:, 2, 1] = 1.0
    grafted = term.grafts[2](step.teachers["t"].feats["stages.2"])
    torch.testing.assert_close(term.route(step, nobody), student.head(grafted.mean(dim=(2, 3))))


def test_only_the_samples_that_the_policy_gives_to_the_teacher_are_imitated() -> None:
    student, teacher = stages(4, 6, 8), stages(6, 8, 10, seed=1)
    objective, step = objective_and_step("sakd", student, teacher, batch(8))
    term = objective.terms["sakd"].eval()
    nn.init.zeros_(term.policy.weight)
    term.policy.bias.data = torch.tensor([0.0, 1e4, 1e4, 0.0, 1e4, 0.0])  # the first stage for all, the others for none
    routed = F.cross_entropy(term.route(step, term.choose(step)), step.labels())
    first = F.mse_loss(term.adapters[0](step.student.feats["stages.0"]), step.teachers["t"].feats["stages.0"])
    torch.testing.assert_close(term(step), first + routed)


def test_a_loss_that_looks_at_weights_refuses_a_teacher_that_has_none() -> None:
    for name in ("cam", "simkd", "l2d"):
        term = make(name, {})
        term.pairs = (("0", "0"),)
        with pytest.raises(StageError, match="tells only its answers"):
            term.build(step_of([(noise(2, 3, 4, 4), noise(2, 3, 4, 4))]))


def test_every_loss_here_names_its_paper_and_its_usual_weight_or_default() -> None:
    from edgepress.stages.distill.losses import term_class

    for name in NAMES:
        assert "20" in (term_class(name).__doc__ or ""), name
