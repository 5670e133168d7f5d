"""Data that are none: what must be known, what is made, what judges, and what is left after a kill."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from without_data import FINGERPRINT, SHAPE, hurry, net, normalized, opened, settings, stripes

from edgepress.stages.synthesis import starts
from edgepress.stages.synthesis.filling import Filling
from edgepress.stages.synthesis.pool import Pool
from edgepress.stages.synthesis.score import Score
from edgepress.targets.errors import RecipeError


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def real_data(folder: Path, *, classes: int = 2, count: int = 24) -> str:
    """Real stripes that judge: a data function in a file."""
    images, labels = stripes(count, seed=3)
    np.savez(folder / "real.npz", images=(images * 255).byte().numpy(), labels=(labels % classes).numpy())
    file = folder / "real.py"
    file.write_text(
        "import numpy as np\n\n"
        "def load():\n"
        f"    found = np.load({str(folder / 'real.npz')!r})\n"
        f"    return {{'test': (found['images'], found['labels']), 'classes': {[str(n) for n in range(classes)]!r}}}\n"
    )
    return f"{file}:load"


def test_training_images_have_no_labels_and_those_that_judge_have_the_teachers_answers(tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    data = opened(settings(), known, tmp_path)
    assert data.train is not None
    assert data.synthetic is not None
    assert not data.train.is_labelled
    assert (len(data.train), len(data.val), len(data.test)) == (38, 13, 13)
    assert len({*data.train.rows.tolist(), *data.val.rows.tolist(), *data.test.rows.tolist()}) == 64
    assert not data.synthetic.is_judged_on_real
    for split in (data.val, data.test):
        images, labels, _ = split.__getitems__(list(range(len(split))))
        with torch.no_grad():
            assert torch.equal(known(data.preprocessing.normalize(images)).argmax(dim=1), labels)
    assert data.classes == ("0", "1")
    assert any("not known" in note for note in data.notes)


def test_the_same_images_are_made_again_and_found_again(tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    first, second = (opened(settings(), known, tmp_path / folder) for folder in ("one", "other"))
    assert first.fingerprint == second.fingerprint
    other = opened(settings(), known, tmp_path / "one", seed=1)
    assert other.fingerprint != first.fingerprint
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("shard-*")}
    assert opened(settings(), known, tmp_path / "one").fingerprint == first.fingerprint
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("shard-*")} == files


class _Killed:
    """Ends the run when so many images are there."""

    def __init__(self, images: int) -> None:
        self.images = images

    def update(self, share: float, text: str) -> None:
        if text.startswith(f"{self.images} of 64"):
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["dafl", "fastdfkd", "nayer", "cmi", "zeroq", "noise"])
def test_a_pool_whose_making_was_killed_ends_as_one_that_was_not(method: str, tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    wanted = settings(method=method, steps=2)
    whole = opened(wanted, known, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        opened(wanted, known, tmp_path / "killed", progress=_Killed(32))
    made = sum(1 for _ in (tmp_path / "killed").rglob("shard-*"))
    assert made == 2
    assert opened(wanted, known, tmp_path / "killed").fingerprint == whole.fingerprint


def test_images_that_no_state_knows_of_are_made_again(tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    whole = opened(settings(), known, tmp_path)
    (state,) = tmp_path.rglob("maker.safetensors")
    state.write_bytes(b"half")
    assert opened(settings(), known, tmp_path).fingerprint == whole.fingerprint


def test_a_damaged_shard_is_named_and_made_again(tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    opened(settings(), known, tmp_path)
    shard = sorted(tmp_path.rglob("shard-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(RecipeError, match=shard.name):
        opened(settings(), known, tmp_path)
    data = opened(settings(), known, tmp_path)
    assert data.train is not None
    assert len(data.train) + len(data.val) + len(data.test) == 64


def test_a_pool_takes_no_more_than_its_room_and_says_so(tmp_path: Path) -> None:
    wanted, notes = settings(images=20_000, pool_mb=1, batch=8_000, method="noise"), list[str]()
    data = opened(wanted, net(seed=0, norms=True), tmp_path, note=notes.append)
    assert data.train is not None
    assert len(data.train) + len(data.val) + len(data.test) == 10**6 // 64
    assert any("pool_mb 1 has room for 15625 of the 20000 images" in note for note in notes)


def test_few_images_of_many_classes_are_told_of_where_a_student_learns(tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    for only_calibrates in (False, True):
        notes: list[str] = []
        wanted = settings(images=16, method="noise")
        opened(wanted, known, tmp_path / str(only_calibrates), note=notes.append, only_calibrates=only_calibrates)
        assert any("16 images for 2 classes are 8 of each" in note for note in notes) is not only_calibrates


def test_real_data_judge_and_nothing_else(tmp_path: Path) -> None:
    wanted = settings().model_copy(update={"eval": real_data(tmp_path)})
    data = opened(wanted, net(seed=0, norms=True), tmp_path)
    assert data.synthetic is not None
    assert data.synthetic.is_judged_on_real
    assert len(data.test) == 24
    assert torch.equal(data.test.labels(), stripes(24, seed=3)[1])
    assert data.val.pixels is not data.test.pixels
    assert any("nothing else was done" in note for note in data.notes)


def test_of_many_real_data_a_fifth_chooses_between_variants_and_the_rest_is_the_test(tmp_path: Path) -> None:
    wanted = settings().model_copy(update={"eval": real_data(tmp_path, count=500)})
    data = opened(wanted, net(seed=0, norms=True), tmp_path)
    assert data.decides is not None
    assert data.deciding is data.decides
    assert (len(data.val), len(data.decides), len(data.test)) == (13, 100, 400)
    assert sorted([*data.decides.rows.tolist(), *data.test.rows.tolist()]) == list(range(500))
    whole = stripes(500, seed=3)[1]
    for split in (data.decides, data.test):
        assert torch.equal(split.labels(), whole[split.rows])
        assert abs(float(split.labels().float().mean() - whole.float().mean())) < 0.01
    assert any("100 real images choose between variants; 400 images" in note for note in data.notes)


def test_of_few_real_data_all_are_the_test(tmp_path: Path) -> None:
    wanted = settings().model_copy(update={"eval": real_data(tmp_path, count=499)})
    data = opened(wanted, net(seed=0, norms=True), tmp_path)
    assert data.decides is None
    assert data.deciding is data.val
    assert len(data.test) == 499


def pictures(folder: Path, *, side: int) -> str:
    """Real ones, in files that say nothing of how a network sees them."""
    for number in range(8):
        path = folder / "pictures" / "test" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (side, side), dtype=np.uint8)).save(path)
    return f"imagefolder:{folder / 'pictures'}"


def test_real_data_are_brought_to_the_shape_of_the_network(tmp_path: Path) -> None:
    wanted = settings().model_copy(update={"eval": pictures(tmp_path, side=12)})
    data = opened(wanted, net(seed=0, norms=True), tmp_path / "cache")
    assert data.shape == data.val.shape == SHAPE
    assert len(data.test) == 8


@pytest.mark.parametrize(("key", "others"), [("mean", {}), ("std", {}), ("std", {"mean": None})])
def test_how_the_network_sees_real_pictures_is_asked_for_and_not_guessed(
    key: str, others: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"eval": pictures(tmp_path, side=8), key: None, **others}
    with pytest.raises(RecipeError, match=rf"data\.{key}: nothing is known"):
        opened(settings().model_copy(update=changes), net(seed=0, norms=True), tmp_path / "cache")


def test_real_data_of_another_shape_are_refused(tmp_path: Path) -> None:
    wanted = settings().model_copy(update={"eval": real_data(tmp_path), "shape": (3, 8, 8)})
    with pytest.raises(RecipeError, match=r"data.shape is \[3, 8, 8\] and the images of data.eval .* are \[1, 8, 8\]"):
        opened(wanted, net(seed=0, norms=True), tmp_path)


def test_real_data_of_other_classes_are_refused(tmp_path: Path) -> None:
    wanted = settings().model_copy(update={"eval": real_data(tmp_path, classes=3)})
    with pytest.raises(RecipeError, match="3 classes and the model tells 2"):
        opened(wanted, net(seed=0, norms=True), tmp_path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mean": None}, "data.mean"),
        ({"std": None}, "data.std"),
        ({"shape": None}, "data.shape"),
        ({"mean": (0.1, 0.2)}, "data.mean has 2 values"),
        ({"std": (0.0,)}, "must be above 0"),
        ({"shape": (1, 4, 4)}, "fewer than 8 pixels"),
        ({"shape": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.3,) * 3}, "cannot take images of 3x8x8"),
    ],
)
def test_what_only_the_user_knows_is_asked_for(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=match):
        opened(settings().model_copy(update=changes), net(seed=0, norms=True), tmp_path)


def test_the_shape_may_be_told_by_the_size_and_the_channels_of_the_mean(tmp_path: Path) -> None:
    wanted = settings().model_copy(update={"shape": None, "size": 8})
    assert opened(wanted, net(seed=0, norms=True), tmp_path).shape == SHAPE


@pytest.mark.parametrize(
    "module",
    [nn.Sequential(nn.Flatten(), nn.Linear(64, 1)), nn.Conv2d(1, 2, 1)],
    ids=["one number", "a map of classes"],
)
def test_a_network_that_tells_no_classes_of_images_apart_is_refused(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="images are made from classifiers"):
        opened(settings(), module, tmp_path)


def test_the_teacher_stays_as_it_is(tmp_path: Path) -> None:
    known = net(seed=0, norms=True).train()
    before = copy.deepcopy(known.state_dict())
    opened(settings(), known, tmp_path)
    assert known.training
    assert all(one.requires_grad for one in known.parameters())
    for name, value in known.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_pool_of_another_network_is_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pool", shape=SHAPE, teacher="f" * 16)
    images, labels = stripes(8, seed=0)
    pool.add(images, labels)
    with pytest.raises(RecipeError, match="another network"):
        opened(settings(f"cached:{tmp_path / 'pool'}"), net(seed=0, norms=True), tmp_path)


def test_a_pool_of_other_shape_is_refused(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pool", shape=(3, 8, 8), teacher=FINGERPRINT)
    pool.add(torch.rand(8, 3, 8, 8), torch.zeros(8))
    with pytest.raises(RecipeError, match="3x8x8"):
        opened(settings(f"cached:{tmp_path / 'pool'}"), net(seed=0, norms=True), tmp_path)


def test_a_pool_of_an_earlier_run_is_used_again_by_the_method_that_made_it(tmp_path: Path) -> None:
    known = net(seed=0, norms=True)
    first = opened(settings(method="nayer"), known, tmp_path / "cache")
    assert first.synthetic is not None
    again = opened(settings(f"cached:{first.synthetic.pool}"), known, tmp_path / "elsewhere")
    assert again.synthetic is not None
    assert again.synthetic.method == "nayer"
    assert torch.equal(again.val.read(torch.arange(len(again.val))), first.val.read(torch.arange(len(first.val))))


@pytest.mark.parametrize(("norms", "method"), [(True, "fastdfkd"), (False, "dfq")])
def test_a_pool_knows_the_method_that_was_chosen_for_it(norms: bool, method: str, tmp_path: Path) -> None:
    known = net(seed=0, norms=norms)
    first = opened(settings(), known, tmp_path / "cache")
    assert first.synthetic is not None
    again = opened(settings(f"cached:{first.synthetic.pool}"), known, tmp_path / "elsewhere", only_calibrates=True)
    assert again.synthetic is not None
    assert again.synthetic.method == first.synthetic.method == method
    assert "made the images of this pool" in again.synthetic.reason


def test_pictures_of_anything_stand_in_for_data(tmp_path: Path) -> None:
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (10, 12, 3), dtype=np.uint8)
        path = tmp_path / "pictures" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    known = net(seed=0, norms=True)
    data = opened(settings(f"images:{tmp_path / 'pictures'}"), known, tmp_path / "cache")
    assert data.train is not None
    assert data.synthetic is not None
    assert data.shape == SHAPE
    assert len(data.train) + len(data.val) + len(data.test) == 12
    assert data.synthetic.images == "images of another kind"
    few = opened(settings(f"images:{tmp_path / 'pictures'}").model_copy(update={"limit": 5}), known, tmp_path / "cache")
    assert few.train is not None
    assert len(few.train) + len(few.val) + len(few.test) == 5


def test_noise_has_the_mean_and_the_spread_of_data_as_far_as_pixels_go(tmp_path: Path) -> None:
    data = opened(settings("noise", images=512), net(seed=0, norms=True), tmp_path)
    seen = normalized(data.val.read(torch.arange(len(data.val))).float() / 255)
    assert abs(float(seen.mean())) < 0.1
    assert 0.8 < float(seen.std()) < 1.0


class _Scored:
    """Fillings whose images are as good as a test wants."""

    def __init__(self, scores: dict[int, float | None], monkeypatch: pytest.MonkeyPatch) -> None:
        fill = Filling.fill

        def scored(filling: Filling, wanted: int) -> Score:
            fill(filling, wanted)
            value = scores[filling.order.seed]
            return Score(
                images=wanted, class_counts=(1, 1), class_confidence=(1.0, 1.0), balance=1.0, confidence=1.0,
                information=0.0 if value is None else value, spread=1.0, collapsed="bad" if value is None else None,
            )  # fmt: skip

        monkeypatch.setattr(Filling, "fill", scored)


def test_the_start_with_the_best_images_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Scored({0: 0.2, 1: 0.9, 2: 0.5}, monkeypatch)
    data = opened(settings(restarts=3), net(seed=0, norms=True), tmp_path)
    assert data.synthetic is not None
    assert data.synthetic.pool.name == "start-1"
    assert [restart.seed for restart in data.synthetic.restarts] == [0, 1, 2]
    assert [path.name for path in data.synthetic.pool.parent.iterdir() if path.is_dir()] == ["start-1"]
    again = opened(settings(restarts=3), net(seed=0, norms=True), tmp_path)
    assert again.synthetic is not None
    assert again.synthetic.restarts == data.synthetic.restarts


def test_others_are_tried_while_every_start_has_collapsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Scored({0: None, 1: None, 2: 0.1}, monkeypatch)
    notes: list[str] = []
    data = opened(settings(restarts=1), net(seed=0, norms=True), tmp_path, note=notes.append)
    assert data.synthetic is not None
    assert data.synthetic.pool.name == "start-2"
    assert len([note for note in notes if "collapsed: bad" in note]) == 2


def test_where_all_collapse_the_run_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Scored(dict.fromkeys(range(1 + starts.MORE)), monkeypatch)
    notes: list[str] = []
    data = opened(settings(restarts=1), net(seed=0, norms=True), tmp_path, note=notes.append)
    assert data.synthetic is not None
    assert len(data.synthetic.restarts) == 1 + starts.MORE
    assert any("of no use: bad" in note for note in notes)


def test_a_teacher_without_norms_gets_images_from_a_method_that_needs_none(tmp_path: Path) -> None:
    data = opened(settings(method="cmi"), net(seed=0, norms=False), tmp_path)
    assert data.synthetic is not None
    assert data.synthetic.method == "dfq"
    assert "cmi needs" in data.synthetic.reason
