"""The built-in example needs nothing from outside."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgepress.stages.builtin import NETWORKS, digits, digits_student, digits_teacher
from edgepress.stages.data import loader
from edgepress.stages.splits import Split


def pixels(split: Split) -> torch.Tensor:
    return split.__getitems__(list(range(len(split))))[0]


def test_the_digits_are_divided_in_the_same_way_every_time_and_completely() -> None:
    first, again = digits(), digits()
    assert {name: len(split) for name, split in first.items()} == {"train": 1078, "val": 270, "test": 449}
    for name, split in first.items():
        assert torch.equal(pixels(split), pixels(again[name]))
        assert torch.equal(split.labels(), again[name].labels())
    rows = torch.cat([split.rows for split in first.values()])
    assert torch.equal(rows.sort().values, torch.arange(1797))


def test_the_digits_use_the_whole_range_of_a_byte() -> None:
    images = pixels(digits()["train"])
    assert (images.dtype, tuple(images.shape[1:])) == (torch.uint8, (1, 8, 8))
    assert (int(images.min()), int(images.max())) == (0, 255)


def multiply_accumulates(module: nn.Module) -> int:
    total = 0

    def count(part: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * part.get_parameter("weight")[0].numel()

    handles = [
        part.register_forward_hook(count) for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))
    ]
    module.eval()(torch.zeros(1, 1, 8, 8))
    for handle in handles:
        handle.remove()
    return total


def test_the_student_costs_between_a_quarter_and_a_third_of_its_teacher() -> None:
    share = multiply_accumulates(digits_student()) / multiply_accumulates(digits_teacher())
    assert 0.24 < share < 0.34


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_built_in_network_has_as_many_outputs_as_it_is_told(name: str) -> None:
    assert NETWORKS[name](num_classes=4).eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 4)


@pytest.mark.slow
@pytest.mark.parametrize("make", [digits_teacher, digits_student])
def test_twelve_epochs_teach_the_digits(make: object) -> None:
    assert callable(make)
    data = digits()
    torch.manual_seed(0)
    module = make()
    optimizer = torch.optim.AdamW(module.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=12 * 17)
    for epoch in range(12):
        for images, labels, _ in loader(data["train"], batch_size=64, shuffle=True, seed=0, epoch=epoch):
            optimizer.zero_grad()
            F.cross_entropy(module((images.float() / 255 - 0.305) / 0.376), labels).backward()
            optimizer.step()
            schedule.step()
    module.eval()
    with torch.no_grad():
        answers = module((pixels(data["test"]).float() / 255 - 0.305) / 0.376).argmax(1)
    assert float((answers == data["test"].labels()).float().mean()) >= 0.98
