"""The examples work as a user would run them, on small data of the same kind."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgepress.pipeline import listing

EXAMPLES = Path(__file__).parent.parent / "examples"
RECIPES = sorted(EXAMPLES.glob("*.yaml"))
SHORT = [
    *(f"--set={stage}.epochs=1" for stage in ("train", "distill", "prune", "quantize")),
    *("--set", "profile.seconds=1", "--set", "profile.memory=false", "--set", "profile.all_cores=false"),
]


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_every_example_recipe_is_a_good_one(path: Path) -> None:
    assert listing.check_one(path) == "recipe"


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + values.astype(np.uint8).tobytes())


def run(folder: Path, *words: str, out: str = "out", short: list[str] = SHORT) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "edgepress", *words, *short, "--out", out, "--json", "--quiet"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr  # a few steps of training may miss the budget
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_the_mnist_recipe_runs_on_idx_files(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", 400), ("t10k", 100)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", generator.integers(0, 256, (count, 28, 28)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    report = run(tmp_path, str(EXAMPLES / "mnist.yaml"), "--data", f"mnist:{tmp_path}")
    names = [variant["name"] for variant in report["variants"]]  # type: ignore[attr-defined]
    assert [name for name in names if not name.endswith(("-bf16", "-fp16"))] == [
        "baseline",
        "distilled",
        "distilled-int8",
        "pruned",
        "int8",
    ]


@pytest.mark.slow
def test_the_cifar_recipe_prunes_a_resnet_with_padded_shortcuts_from_a_folder_of_pictures(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for name in "0123456789":
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    report = run(tmp_path, str(EXAMPLES / "cifar10.yaml"), "--data", f"imagefolder:{tmp_path / 'pictures'}")
    variants = {variant["name"]: variant for variant in report["variants"]}  # type: ignore[attr-defined]
    assert variants["pruned"]["macs"] < 0.8 * variants["baseline"]["macs"]


@pytest.mark.slow
def test_a_model_file_and_a_data_function_run_from_the_command_line(tmp_path: Path) -> None:
    for name in ("my_model.py", "my_data.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    report = run(
        tmp_path, "--model", "my_model.py:resnet20", "--set", "model.arguments={num_classes: 4}",
        "--data", "my_data.py:shapes", "--set", "train.lr=0.01",
    )  # fmt: skip
    assert report["data"]["source"] == "my_data.py:shapes"  # type: ignore[index]


def example(name: str) -> Any:
    """The module that a file in examples/ is."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accuracies(report: dict[str, object]) -> dict[str, float]:
    """Of each variant on the test samples, in the runtime."""
    return {variant["name"]: variant["accuracy"]["value"] for variant in report["variants"]}  # type: ignore[attr-defined]


def test_what_the_recipes_page_shows_is_what_the_examples_hold() -> None:
    page = (EXAMPLES.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    held = (EXAMPLES / "graph_2_student.yaml").read_text(encoding="utf-8").splitlines()
    assert [line for line in shown.splitlines() if line not in held] == []
    named = set(re.findall(r"examples/[\w./]+\.(?:py|yaml)", page))
    assert len(named) > 4
    assert [name for name in named if not (EXAMPLES.parent / name).is_file()] == []


def test_a_neighbourhood_is_the_node_its_neighbours_and_theirs() -> None:
    graph = example("graph")
    cites = np.zeros((6, 6), dtype=bool)
    for one, other in ((0, 3), (3, 5), (5, 1)):  # 2 and 4 cite nobody, and 1 is three steps away from 0
        cites[one, other] = cites[other, one] = True
    words = np.random.default_rng(0).random((6, graph.WORDS)).astype(np.float32)
    found = graph.neighbourhood(0, cites, words)
    members = found[:3, graph.MEMBERS :]
    np.testing.assert_array_equal(members, words[[0, 3, 5]])
    np.testing.assert_array_equal(found[:3, :3], [[1, 1, 0], [1, 1, 1], [0, 1, 1]])
    assert not found[3:].any()


def test_the_graph_network_looks_at_neighbours_in_any_order_and_at_nobody_else() -> None:
    graph = example("graph")
    torch.manual_seed(0)
    net = graph.graph_network().eval()
    x = torch.zeros(1, 1, graph.MEMBERS, graph.MEMBERS + graph.WORDS)
    x[0, 0, :4, :4] = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]])
    x[0, 0, :4, graph.MEMBERS :] = torch.rand(4, graph.WORDS)
    order = torch.tensor([0, 2, 1, 3, *range(4, graph.MEMBERS)])
    turned = x[:, :, order]
    turned[..., : graph.MEMBERS] = turned[..., : graph.MEMBERS][..., order]
    without, alone = x.clone(), x.clone()
    without[0, 0, 3] = 0  # a stranger
    alone[0, 0, 1, graph.MEMBERS :] = 0  # a neighbour's words
    with torch.no_grad():
        said, same, still, changed = (net(one) for one in (x, turned, without, alone))
    torch.testing.assert_close(same, said)
    torch.testing.assert_close(still, said)
    assert (changed - said).abs().max() > 1e-3


def test_the_policys_teacher_says_the_softmax_of_its_values_over_tau() -> None:
    policy = example("policy")
    torch.manual_seed(0)
    net = policy.teacher()
    states = policy.shown(policy.start(50, np.random.default_rng(0)))
    with torch.no_grad():
        values, said = net.values(states), net(states)
    torch.testing.assert_close(said.softmax(1), (values / 0.01).softmax(1))
    assert said.max() == 0  # so that half precision, which answers are kept in, loses nothing of the best one


def test_a_pole_that_is_always_pushed_to_one_side_falls_soon_and_one_in_time_stays_up_longer() -> None:
    policy = example("policy")
    lasted = {}
    for name, player in (
        ("always right", lambda states: np.ones(len(states), dtype=np.int64)),
        ("where it falls", lambda states: (states[:, 2] + 0.3 * states[:, 3] > 0).astype(np.int64)),
    ):
        lasted[name], seen = policy.play(player, games=50, seed=0)
        assert [len(states) for states in seen] == [(lasted[name] > place).sum() for place in range(len(seen))]
    assert lasted["always right"].max() < 50
    assert lasted["where it falls"].mean() > 3 * lasted["always right"].mean()


def test_recorded_states_are_given_back_by_the_recipes_mean_and_std() -> None:
    policy = example("policy")
    torch.manual_seed(0)
    net = policy.teacher().eval()
    images, labels = policy.recorded(net, seed=0)["val"]
    with torch.no_grad():
        assert torch.equal(net((images[:, None] - 0.5) / 0.5).argmax(1), labels)


@pytest.mark.slow
def test_a_network_without_a_graph_learns_from_one_that_sees_it(tmp_path: Path) -> None:
    for name in ("graph.py", "graph_1_teacher.yaml", "graph_2_student.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    short = ["--set=train.epochs=30", *SHORT[4:]]
    teacher = accuracies(run(tmp_path, "graph_1_teacher.yaml", out="runs/graph", short=short))["baseline"]
    found = accuracies(run(tmp_path, "graph_2_student.yaml", short=[*short, "--set=distill.epochs=10"]))
    assert found["distilled"] > found["baseline"] + 5  # the same network, trained on labels alone
    assert teacher > found["distilled"] > 60


@pytest.mark.slow
def test_a_policy_of_a_tenth_of_the_size_plays_nearly_as_well(tmp_path: Path) -> None:
    for name in ("policy.py", "policy.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)

    def pushes(*words: str) -> float:
        done = subprocess.run(
            [sys.executable, "policy.py", *words], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=400
        )
        return float(done.stdout.split(": ")[1].split()[0])

    teacher = pushes("teacher")
    report = run(tmp_path, "policy.yaml", short=["--set=distill.epochs=30", *SHORT[4:]])
    variants = {variant["name"]: variant for variant in report["variants"]}  # type: ignore[attr-defined]
    assert 9 < variants["baseline"]["parameters"] / variants["distilled"]["parameters"] < 11
    assert pushes("play", "out/models/distilled.onnx") > 0.8 * teacher > 200
