"""A policy: the values that a large network gives to actions teach a network of a tenth of its size.

    python examples/policy.py teacher                      # learns the game, writes policy_teacher.safetensors
    compress examples/policy.yaml --out runs/policy        # its student, exported and measured
    python examples/policy.py play runs/policy/models/distilled.onnx

Policy distillation (Rusu et al., 2016, arXiv:1511.06295): the teacher plays, and its student learns
softmax(q / 0.01), q its values of all actions, in the states that it came through. What it did there, a label for each
state, would be behaviour cloning; the values tell besides where the choice mattered.

The game is to balance a pole on a cart (Barto, Sutton & Anderson, 1983) in gusty wind, by pushing the cart to one side
or the other every 20 ms. The teacher learns by value iteration: values of states at random are fitted to what the
next ones are worth.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgepress.targets import installed

TEACHER = Path(__file__).with_name("policy_teacher.safetensors")
LIMITS = np.array([2.4, 3.0, 0.21, 3.0], dtype=np.float32)  # metres, m/s, radians, rad/s; place and angle end the game
PUSHES = ("left", "right")
LONGEST = 500  # pushes of a game
WIND = 8.0  # standard deviation of the wind's force, in newtons; a push has 10
TAU = 0.01  # values that differ by much more than this are told apart as right and wrong
REACH = 0.99  # what the next state counts: about 100 pushes ahead are looked at
STEPS = 2500  # of learning: about ten seconds

States = NDArray[np.float32]
Whole = NDArray[np.int64]
Player = Callable[[States], Whole]


def start(count: int, lots: np.random.Generator) -> States:
    """(count, 4): place and speed of the cart, angle and turning speed of the pole, near the middle."""
    return lots.uniform(-0.3, 0.3, (count, 4)).astype(np.float32) * LIMITS


def push(states: States, pushes: Whole, lots: np.random.Generator) -> tuple[States, NDArray[np.bool_]]:
    """The states 20 ms later, and which of them have lost: a cart of 1 kg, a pole of 0.1 kg and 1 m."""
    _, speed, angle, turning = states.T
    force = 20.0 * pushes - 10.0 + WIND * lots.standard_normal(len(states))
    sine, cosine = np.sin(angle), np.cos(angle)
    common = (force + 0.05 * turning**2 * sine) / 1.1
    twist = (9.8 * sine - cosine * common) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    slide = common - 0.05 * twist * cosine / 1.1
    after = states + 0.02 * np.stack([speed, slide, turning, twist], axis=1).astype(np.float32)
    return after, (np.abs(after[:, 0]) > LIMITS[0]) | (np.abs(after[:, 2]) > LIMITS[2])


def play(player: Player, *, games: int, seed: int) -> tuple[Whole, list[States]]:
    """How many pushes each game lasted, and the states of those that still went on, by push."""
    lots = np.random.default_rng(seed)
    states, lasted = start(games, lots), np.zeros(games, dtype=np.int64)
    going, seen = np.arange(games), []
    while len(going) and len(seen) < LONGEST:
        seen.append(states)
        states, lost = push(states, player(states), lots)
        lasted[going] += 1
        states, going = states[~lost], going[~lost]
    return lasted, seen


def layers(width: int) -> nn.Sequential:
    """A value for each push. States come as images of one row, (batch, 1, 1, 4), from -1 to 1."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, len(PUSHES))
    )


class Teacher(nn.Module):
    """Says the values of the pushes, sharpened, and measured from the best one: a softmax does not see the difference.

    The sharpening is in the network, because only the teacher's answers are sharpened; with T: 1 nothing more is.
    """

    def __init__(self, tau: float = TAU) -> None:
        super().__init__()
        self.tau, self.layers = tau, layers(128)

    def values(self, x: Tensor) -> Tensor:
        return self.layers(x) / (1 - REACH)

    def forward(self, x: Tensor) -> Tensor:
        values = self.values(x)
        return (values - values.amax(dim=1, keepdim=True)) / self.tau


def teacher(*, tau: float = TAU) -> nn.Module:
    """17 000 parameters."""
    return Teacher(tau)


def student() -> nn.Module:
    """1 700 parameters."""
    return layers(38)


def learn(*, seed: int, steps: int = STEPS) -> Teacher:
    """A teacher, by value iteration: a push is worth what it brings at once, and REACH times what comes after.

    What it brings: 1 in the middle, less towards the ends of the track.
    """
    torch.manual_seed(seed)
    lots = np.random.default_rng(seed)
    net, older = Teacher(), Teacher()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        if step % 10 == 0:
            older.load_state_dict(net.state_dict())
        states = lots.uniform(-1, 1, (256, 4)).astype(np.float32) * LIMITS
        pushes = lots.integers(len(PUSHES), size=256)
        after, lost = push(states, pushes, lots)
        brings = torch.from_numpy(1 - (states[:, 0] / LIMITS[0]) ** 2)
        with torch.no_grad():
            worth = brings + REACH * older.values(shown(after)).amax(dim=1) * torch.from_numpy(~lost)
        said = net.values(shown(states)).gather(1, torch.from_numpy(pushes)[:, None])
        optimizer.zero_grad()
        F.mse_loss(said[:, 0], worth).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def shown(states: States) -> Tensor:
    """As networks take them."""
    return torch.from_numpy((states / LIMITS).clip(-1, 1).astype(np.float32))[:, None, None]


def by_network(net: nn.Module) -> Player:
    """Pushes where the network says most."""

    @torch.no_grad()
    def player(states: States) -> Whole:
        return net(shown(states)).argmax(dim=1).numpy()

    return player


def by_file(path: Path) -> Player:
    """The same for an exported network, in ONNX Runtime, one state at a time as a device sees them."""
    onnxruntime = installed.load("onnxruntime", package="onnxruntime")  # it would report its use if merely imported
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def player(states: States) -> Whole:
        rows = shown(states).numpy()
        return np.array(
            [session.run(None, {"input": rows[place : place + 1]})[0].argmax() for place in range(len(rows))]
        )

    return player


def replay() -> dict[str, Any]:
    """States that the teacher in policy_teacher.safetensors comes through, and what it does there."""
    from safetensors.torch import load_file

    if not TEACHER.is_file():
        raise FileNotFoundError(f"there is no {TEACHER.name}: run `python {Path(__file__).name} teacher` first")
    net = Teacher()
    net.load_state_dict(load_file(TEACHER))
    return recorded(net.eval(), seed=0)


def recorded(net: Teacher, *, seed: int) -> dict[str, Any]:
    """Three parts from different games, images from 0 to 1."""
    parts = {}
    for number, (name, count) in enumerate({"train": 2000, "val": 500, "test": 1000}.items()):
        _, seen = play(by_network(net), games=40, seed=1000 + 3 * seed + number)
        states = np.concatenate(seen)
        kept = shown(np.random.default_rng(seed).permutation(states)[:count])
        with torch.no_grad():
            parts[name] = (kept[:, 0] / 2 + 0.5, net(kept).argmax(dim=1))
    return {**parts, "classes": PUSHES}


def main() -> None:
    options = argparse.ArgumentParser(
        description="The teacher of examples/policy.yaml, and games of exported networks."
    )
    options.add_argument("do", choices=("teacher", "play"))
    options.add_argument("file", type=Path, nargs="?", help="an exported network to play with")
    asked = options.parse_args()
    if asked.do == "teacher":
        from safetensors.torch import save_file

        net = learn(seed=0)
        save_file(net.state_dict(), TEACHER)
        player, name = by_network(net), TEACHER.name
    elif asked.file is not None:
        player, name = by_file(asked.file), asked.file.name
    else:
        options.error("play needs a file")
    lasted, _ = play(player, games=200, seed=9)
    error = lasted.std(ddof=1) / len(lasted) ** 0.5
    print(f"{name}: {lasted.mean():.0f} pushes a game, standard error {error:.0f} over 200 games; at most {LONGEST}")


if __name__ == "__main__":
    main()
