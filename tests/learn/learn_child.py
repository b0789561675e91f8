"""What a test lets run, and die, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mobilenet.learn.options import TrainOptions
from mobilenet.learn.train import train


def die() -> None:
    """As a machine that loses its power."""
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Dies at the n-th call."""

    def __init__(self, number: int) -> None:
        self.left = number

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            die()


def without_pictures() -> None:
    """The plots at the end take longer than the run."""
    from mobilenet.learn import session

    session.write_pictures = lambda *_: None  # type: ignore[assignment]


def run(words: dict[str, Any], fault: str = "", number: int = 0, log: str = "") -> None:
    """Trains; dies at the n-th "step", before the n-th "fsync", or before or after the n-th "rename"."""
    if log:
        stream = open(log, "w")  # noqa: SIM115, PTH123
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    without_pictures()
    countdown = Countdown(number)
    fsync, replace = os.fsync, Path.replace

    def dying_fsync(handle: int) -> None:
        countdown.tick()
        fsync(handle)

    def dying_replace(path: Path, target: Path) -> Path:
        if fault == "before rename":
            countdown.tick()
        result = replace(path, target)
        if fault == "after rename":
            countdown.tick()
        return result

    if fault == "fsync":
        os.fsync = dying_fsync
    if "rename" in fault:
        Path.replace = dying_replace  # type: ignore[method-assign,assignment]

    def listen(event: dict[str, Any]) -> None:
        if fault == "step" and event.get("task", "").startswith("epoch"):
            countdown.tick()

    train(TrainOptions(**words), on_progress=listen)


def write_gradients(path: str) -> None:
    """Gradients and statistics of one step in float64, on this process's uneven part of 10 samples."""
    import numpy as np
    import torch
    import torch.distributed as dist

    from mobilenet.family.initialise import initialise
    from mobilenet.family.names import build
    from mobilenet.run.torch_module import GraphModule

    graph = build("mobilenet_v3_small", width_multiplier=0.25, resolution=32, classes=3, dropout=0.0)
    module = GraphModule.from_weights(graph, initialise(graph, 0)).double().train()
    images = torch.randn(10, 32, 32, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.arange(10) % 3
    together = dist.is_initialized() and dist.get_world_size() > 1
    part = (slice(0, 4), slice(4, 10))[dist.get_rank()] if together else slice(0, 10)
    logits = module(images[part])["logits"]
    (torch.nn.functional.cross_entropy(logits, targets[part], reduction="sum") / 10).backward()
    for parameter in module.parameters():
        if together:
            dist.all_reduce(parameter.grad)
    arrays = {name: parameter.grad.numpy() for name, parameter in module.named_parameters()}
    arrays |= {name: value.numpy() for name, value in module.named_buffers()}
    if not together or dist.get_rank() == 0:
        np.savez(path, **arrays)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    if "gradients" in given:
        import torch

        torch.distributed.init_process_group("gloo")
        write_gradients(given.pop("gradients"))
    then = given.pop("then", None)
    run(given)
    if then:
        run(then)
