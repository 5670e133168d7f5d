"""torchdistill's training of the pair in `distill_overhead.py`, in a process of its own: an epoch for each line read.

It is run by the Python that has torchdistill, which need not have this project: see `distill_overhead.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import RandomSampler, TensorDataset
from torchdistill.core.distillation import DistillationBox

sys.path.append(str(Path(__file__).parent.parent / "examples"))
from my_model import resnet20, resnet56

TAP = {"input": [], "output": ["linear"]}
LOSS = {
    "student_module_path": "linear", "student_module_io": "output",
    "teacher_module_path": "linear", "teacher_module_io": "output",
    "temperature": 4.0, "alpha": 0.1, "reduction": "batchmean",
}  # fmt: skip


def box(images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> Any:
    """Its box for one stage, as its examples set it up, without logs and files."""
    config = {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "pictures", "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": batch_size, "num_workers": 0},
        },
        "val_data_loader": {},
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False, "forward_hook": TAP},
        "student": {"forward_proc": "forward_batch_only", "forward_hook": TAP},
        "optimizer": {
            "key": "SGD", "max_grad_norm": 5.0,
            "kwargs": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": LOSS}, "weight": 1.0}}},
        },
    }  # fmt: skip
    data = {"pictures": TensorDataset(images, labels)}
    torch.manual_seed(0)
    return DistillationBox(resnet56().eval(), resnet20(), data, config, torch.device("cpu"), None, False, 1.0)


def epoch(training: Any) -> None:
    """The loop of its image_classification example."""
    training.pre_epoch_process(epoch=0)
    training.teacher_model.eval()
    for images, labels, extra in training.train_data_loader:
        training.pre_forward_process()
        loss = training.forward_process(images, labels, extra)
        training.post_forward_process(loss=loss)
        loss.item()
    training.post_epoch_process()


def main() -> None:
    count, batch_size = map(int, sys.argv[1:])
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 32, 32, generator=generator)
    training = box(images, torch.randint(10, (count,), generator=generator), batch_size)
    print("ready", flush=True)
    for _ in sys.stdin:
        epoch(training)
        print("done", flush=True)


if __name__ == "__main__":
    main()
