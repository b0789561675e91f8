"""Outputs of a module for samples in evaluation mode, and how good they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from mobilenet.learn.data import EvaluationData, share_of_process
from mobilenet.learn.machine import Machine
from mobilenet.learn.progress import Advance
from mobilenet.learn.task import Score
from mobilenet.run.torch_module import GraphModule

Scores = NDArray[np.float32]


@torch.no_grad()
def outputs_of(
    module: GraphModule,
    data: EvaluationData,
    output: str,
    machine: Machine,
    *,
    mixed_precision: bool = True,
    advance: Advance = lambda _: None,
    check: Callable[[], None] = lambda: None,
) -> Scores:
    """One output of a classifier for every sample, float32 (N, ...), the same in every process.

    The processes share the samples. `check` is called between batches and may raise to stop.

    Raises:
        ImageError: a picture cannot be read.
    """
    was_training = module.training
    module.eval()
    part = share_of_process(len(data.samples), machine.process, machine.processes)
    size = module.graph.types[module.graph.outputs[output]].shape[-1]
    collected = torch.zeros(len(data.samples), size, device=machine.device)
    row = part.start
    for images in data.batches(part):
        check()
        collected[row : row + len(images)] = _run(module, images, output, machine, mixed_precision)
        row += len(images)
        advance(len(images) * machine.processes)
    module.train(was_training)
    return machine.total(collected).cpu().numpy()


def _run(
    module: GraphModule, images: torch.Tensor, output: str, machine: Machine, mixed_precision: bool
) -> torch.Tensor:
    with machine.autocast() if mixed_precision else nullcontext():
        outputs: dict[str, torch.Tensor] = module(images.to(machine.device))
    return outputs[output].flatten(1)


def score(logits: Scores, labels: NDArray[np.int64]) -> Score:
    """Top-1 and loss of logits (N, classes); the lowest of equally likely classes is the answer."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    own = wide[np.arange(len(labels)), labels]
    losses = np.log(np.exp(wide).sum(axis=1)) - own
    return Score(float((logits.argmax(axis=1) == labels).mean()), float(losses.mean()))
