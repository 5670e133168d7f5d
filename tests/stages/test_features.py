"""Losses on features: each against a computation of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import noise, step_of, term_for, value
from torch import nn

from edgepress.stages.distill.fusion import hierarchical, high_pass
from edgepress.targets.errors import RecipeError, StageError

MAPS = [(noise(4, 3, 8, 8), noise(4, 5, 8, 8, seed=1)), (noise(4, 6, 4, 4, seed=2), noise(4, 7, 2, 2, seed=3))]


def test_hints_are_the_mean_squared_difference_of_adapted_features() -> None:
    same = [(noise(4, 5, 8, 8), noise(4, 5, 8, 8, seed=1))]
    s, t = (one.numpy() for one in same[0])
    assert value("hint", same).item() == pytest.approx(np.mean((s - t) ** 2), rel=1e-6)
    term = term_for("fitnet", MAPS)
    apart = [term.adapters[0](MAPS[0][0]) - MAPS[0][1], term.adapters[1](F.avg_pool2d(MAPS[1][0], 2)) - MAPS[1][1]]
    torch.testing.assert_close(term(step_of(MAPS)), sum(one.square().mean() for one in apart))


def test_attention_transfer_against_numpy() -> None:
    def q(features: np.ndarray) -> np.ndarray:
        v = (features.astype(np.float64) ** 2).mean(axis=1).reshape(len(features), -1)
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    (s, t), (s2, t2) = [(one.numpy(), other.numpy()) for one, other in MAPS]
    s2 = s2.reshape(4, 6, 2, 2, 2, 2).mean(axis=(3, 5))
    expected = np.mean((q(s) - q(t)) ** 2) + np.mean((q(s2) - q(t2)) ** 2)
    assert value("at", MAPS).item() == pytest.approx(expected, rel=1e-5)


@settings(max_examples=20)
@given(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(0, 1000))
def test_attention_does_not_change_when_features_are_scaled(mine: float, theirs: float, seed: int) -> None:
    s, t = noise(2, 3, 4, 4, seed=seed), noise(2, 5, 4, 4, seed=seed + 1)
    torch.testing.assert_close(value("at", [(mine * s, theirs * t)]), value("at", [(s, t)]), rtol=1e-3, atol=1e-6)


def test_attention_of_tokens_is_over_tokens_and_of_vectors_is_refused() -> None:
    tokens = [(noise(2, 6, 3), noise(2, 6, 5, seed=1))]
    as_maps = [tuple(one.transpose(1, 2).reshape(2, -1, 2, 3) for one in tokens[0])]
    torch.testing.assert_close(value("at", tokens), value("at", as_maps))
    with pytest.raises(StageError, match="needs positions"):
        value("at", [(noise(2, 6), noise(2, 6, seed=1))])


def test_neuron_selectivity_is_the_discrepancy_of_channels() -> None:
    s, t = MAPS[0]

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([[(x @ y) ** 2 for x in a] for y in b]))

    total = 0.0
    for one, other in zip(s.numpy(), t.numpy(), strict=True):
        a, b = (x.reshape(len(x), -1) / np.linalg.norm(x.reshape(len(x), -1), axis=1)[:, None] for x in (one, other))
        total += kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)
    assert value("nst", [(s, t)]).item() == pytest.approx(total / 4, rel=1e-5)
    assert value("nst", [(t[:, torch.randperm(5)], t)]).item() == pytest.approx(0.0, abs=1e-6)


def test_factor_transfer_compares_factors_and_its_reconstruction_reaches_the_paraphraser_alone() -> None:
    ((s, t),) = MAPS[:1]
    s = s.clone().requires_grad_()
    term = term_for("ft", [(s, t)])
    term(step_of([(s, t)])).backward()
    factors = term.paraphrasers[0](t)
    assert factors.shape[1] == 2  # half of 5
    said, wanted = (F.normalize(one.square().mean(1).flatten(1)) for one in (term.translators[0](s), factors))
    rebuilt = (term.decoders[0](factors) - t).square().mean()
    torch.testing.assert_close(term(step_of([(s, t)])), (said - wanted).abs().mean() + rebuilt)
    (alone,) = torch.autograd.grad(rebuilt, [term.paraphrasers[0][0].weight])
    torch.testing.assert_close(term.paraphrasers[0][0].weight.grad, alone)
    with pytest.raises(RecipeError, match="rate"):
        value("ft", MAPS, rate=0)


def test_variational_information_is_a_gaussian_likelihood() -> None:
    term = term_for("vid", MAPS[:1], variance=2.0)
    s, t = MAPS[0]
    variance = torch.full_like(t, 2.0)
    expected = F.gaussian_nll_loss(term.means[0](s), t, variance)
    torch.testing.assert_close(term(step_of(MAPS[:1])), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(RecipeError, match="variance"):
        term_for("vid", MAPS, variance=0.0)


def test_a_variance_belongs_to_a_channel_of_maps_and_to_a_width_of_tokens() -> None:
    for pair in (MAPS[0], (noise(4, 6, 3), noise(4, 6, 5, seed=1)), (noise(4, 3), noise(4, 5, seed=1))):
        term = term_for("vid", [pair])
        assert term.raw[0].shape == (5,)
        assert torch.isfinite(term(step_of([pair])))


def test_channel_means_are_compared_and_nothing_else() -> None:
    s, t = noise(4, 5, 8, 8), noise(4, 5, 4, 4, seed=1)
    assert value("channel", [(s, t)]).item() == pytest.approx(
        np.mean((s.mean((2, 3)) - t.mean((2, 3))).numpy() ** 2), rel=1e-5
    )
    moved = s.flatten(2)[:, :, torch.randperm(64)].view_as(s)
    torch.testing.assert_close(value("channel", [(moved, t)]), value("channel", [(s, t)]))


def test_guided_distillation_learns_from_what_the_teacher_gets_right() -> None:
    student, teacher, labels = noise(4, 3), noise(4, 3, seed=1), torch.tensor([0, 1, 2, 0])
    step = step_of([(noise(4, 1), noise(4, 1))], labels=labels, student=student, teacher=teacher)
    by_hand = 0.0
    for z, w, y in zip(student, teacher, labels, strict=True):
        if int(w.argmax()) == int(y):
            p = w.softmax(0)
            by_hand += float((p * (p.log() - z.log_softmax(0))).sum())
    assert term_for("gkd", [(noise(4, 1), noise(4, 1))])(step).item() == pytest.approx(by_hand / 4, rel=1e-5, abs=1e-7)


def test_activation_boundaries_ask_for_a_margin_on_the_teachers_side() -> None:
    s = torch.tensor([[[[2.0, 0.5]], [[-3.0, -0.25]]]])
    t = torch.tensor([[[[1.0, 4.0]], [[-1.0, 1.0]]]])
    # beyond the margin: 0; 0.5 of 1: 0.25; -3 of -1: 0; -0.25 where 1 is wanted: 1.5625
    assert value("ab", [(s, t)]).item() == pytest.approx((0.25 + 1.5625) / 4)
    assert value("ab", [(s, t), (s, t)]).item() == pytest.approx((0.25 + 1.5625) / 4 * 1.5)  # 1/2 for the first stage


def test_the_overhaul_looks_away_where_the_student_is_below_what_a_rectifier_lets_through() -> None:
    t = torch.tensor([2.0, -0.5, -0.5, -3.0, -3.0, -2.0]).view(1, 1, 1, 6)
    s = torch.tensor([1.0, -1.0, 0.5, -2.5, 0.0, -1.9]).view(1, 1, 1, 6)
    margin = -(0.5 + 0.5 + 3 + 3 + 2) / 5  # the mean of what is negative
    by_hand = (1 - 2) ** 2 + 0 + (0.5 + 0.5) ** 2 + 0 + (0 - margin) ** 2 + 0
    assert value("ofd", [(s, t)]).item() == pytest.approx(by_hand, rel=1e-6)


def test_the_margin_is_the_conditional_mean_that_the_paper_computes_from_a_batch_norm() -> None:
    t = 0.5 + 2 * noise(64, 2, 32, 32)
    term = term_for("ofd", [(t, t)])
    term.train()
    mean, std = 0.5, 2.0
    below = 0.5 * math.erfc(mean / std / math.sqrt(2))
    expected = mean - std * math.exp(-((mean / std) ** 2) / 2) / math.sqrt(2 * math.pi) / below
    assert term.margin(t, 0).flatten().tolist() == pytest.approx([expected] * 2, rel=0.02)
    before = term.sum_0.clone()
    term.eval()
    term.margin(t, 0)
    assert torch.equal(term.sum_0, before)


def test_the_overhaul_refuses_features_behind_an_activation() -> None:
    with pytest.raises(StageError, match="never negative"):
        term_for("ofd", [(noise(2, 3, 4, 4), noise(2, 3, 4, 4).relu())])


def test_the_flow_between_stages_against_numpy() -> None:
    pairs = [(noise(2, 3, 4, 4), noise(2, 3, 8, 8, seed=1)), (noise(2, 5, 2, 2, seed=2), noise(2, 5, 4, 4, seed=3))]
    matrices = []
    for one, after in zip(*pairs, strict=True):
        pooled = F.avg_pool2d(one, 2).numpy()
        matrices.append(np.einsum("bihw,bjhw->bij", pooled, after.numpy()) / after[0, 0].numel())
    assert value("fsp", pairs).item() == pytest.approx(np.mean((matrices[0] - matrices[1]) ** 2), rel=1e-5)
    with pytest.raises(StageError, match="two stages"):
        value("fsp", pairs[:1])


def test_hcl_counts_each_coarser_level_half() -> None:
    s, t = (one.numpy() for one in (noise(2, 3, 8, 8), noise(2, 3, 8, 8, seed=1)))
    total, weights = np.mean((s - t) ** 2), 1.0
    for cells, weight in ((4, 0.5), (2, 0.25), (1, 0.125)):
        a, b = (x.reshape(2, 3, cells, 8 // cells, cells, 8 // cells).mean(axis=(3, 5)) for x in (s, t))
        total, weights = total + weight * np.mean((a - b) ** 2), weights + weight
    assert hierarchical(torch.from_numpy(s), torch.from_numpy(t)).item() == pytest.approx(total / weights, rel=1e-5)


def test_a_review_that_lets_nothing_through_from_deeper_stages_compares_each_stage_by_itself() -> None:
    term = term_for("reviewkd", MAPS).eval()
    nn.init.zeros_(term.weigh[0][0].weight)
    term.weigh[0][0].bias.data = torch.tensor([100.0, -100.0])  # sigmoid: 1 and 0
    alone = []
    for index, (s, t) in enumerate(MAPS):
        here = F.interpolate(term.narrow[index](s), t.shape[2:], mode="nearest")
        alone.append(hierarchical(term.widen[index](here), t))
    torch.testing.assert_close(term(step_of(MAPS)), sum(alone))
    term.weigh[0][0].bias.data = torch.tensor([-100.0, 100.0])  # only what is deeper
    deeper = F.interpolate(term.narrow[1](MAPS[1][0]), (8, 8), mode="nearest")
    torch.testing.assert_close(term(step_of(MAPS)), hierarchical(term.widen[0](deeper), MAPS[0][1]) + alone[1])


def test_a_high_pass_filter_takes_away_the_mean_and_does_nothing_on_small_maps() -> None:
    large, small = noise(2, 3, 40, 40), noise(2, 3, 16, 16)
    passed = torch.fft.ifft2(high_pass(torch.fft.fft2(large))).real
    torch.testing.assert_close(passed.mean(dim=(2, 3)), torch.zeros(2, 3), atol=1e-6, rtol=0)
    assert passed.var() > large.var() / 2
    spectrum = torch.fft.fft2(small)
    assert high_pass(spectrum) is spectrum


def test_a_filter_of_ones_passes_the_map_as_it_is() -> None:
    s, t = noise(4, 3, 8, 8), noise(4, 3, 8, 8, seed=1)
    term = term_for("famkd", [(s, t)]).eval()
    term.filters[0].data.zero_()
    for channel in range(3):
        term.filters[0].data[channel, channel, :, :, 0] = 1.0
    nn.init.zeros_(term.beside[0].weight)
    nn.init.zeros_(term.beside[0].bias)
    torch.testing.assert_close(term(step_of([(s, t)])), F.mse_loss(0.5 * s / math.sqrt(1 + 1e-5), t))


def test_a_filter_that_would_not_fit_into_memory_is_refused() -> None:
    large = torch.zeros(1, 1024, 16, 16)
    with pytest.raises(StageError, match="smaller maps"):
        term_for("famkd", [(large, large)])
