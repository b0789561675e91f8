"""The resumable state of a run: one safetensors file, replaced atomically, so that there is always a whole one.

Tensors go by names "model/...", "average/...", "optimizer/<parameter>/<quantity>"; everything else is one JSON
text in the file's metadata. Nothing is pickled.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mobilenet.errors import TrainingError
from mobilenet.files.atomic import write_atomically

KEY = "mobilenet_training"
VERSION = 1


def save_state(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Writes the state; a state that was at `path` stays valid until this one is complete.

    Raises:
        OSError: the disk is full or the folder is not writable; see `explained`.
    """
    text = json.dumps({"version": VERSION, **values}, ensure_ascii=False, allow_nan=False)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(whole, {KEY: text}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and values that `save_state` wrote.

    Raises:
        TrainingError: the file is missing, damaged or of another version; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values = json.loads(text or "")
    except (OSError, SafetensorError, ValueError) as error:
        raise TrainingError(f"{path}: is no state of a training run, or damaged: {error}") from error
    if not isinstance(values, dict) or values.get("version") != VERSION:
        raise TrainingError(f"{path}: was written by another release; finish the run with that one")
    return tensors, values


@contextmanager
def explained(what: str, intact: Path) -> Iterator[None]:
    """Turns a failure to write `what` into an error that says why, and that the state at `intact` is still good.

    Raises:
        TrainingError: the disk is full, or the folder is not writable.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else error.strerror or str(error)
        cure = "free some space" if full else "remove the cause"
        kept = f"the last good state is intact: {intact}" if intact.exists() else "there was no earlier state"
        raise TrainingError(f"{what} could not be saved: {reason} ({kept}); {cure}, then --resume") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> dict[str, Tensor]:
    """The optimizer's running quantities by "<parameter>/<quantity>"."""
    tensors = {}
    for parameter, quantities in optimizer.state.items():
        for quantity, value in quantities.items():
            if value is not None:
                name = names[cast(nn.Parameter, parameter)]
                tensors[f"{name}/{quantity}"] = torch.as_tensor(value, dtype=torch.float32)
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str], tensors: Mapping[str, Tensor]
) -> None:
    """Puts back what `optimizer_tensors` gave.

    Raises:
        TrainingError: a tensor belongs to no parameter that learns.
    """
    parameters = {name: parameter for parameter, name in names.items()}
    for key, tensor in tensors.items():
        name, _, quantity = key.rpartition("/")
        if name not in parameters:
            raise TrainingError(f"the state holds '{key}', which belongs to no parameter of this network")
        parameter = parameters[name]
        # "step" stays on the CPU unless the optimizer is fused on the parameter's device.
        device = parameter.device
        optimizer.state[parameter][quantity] = torch.empty_like(tensor, device=device).copy_(tensor)


def copy_into(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Copies the tensors "<prefix><name>" into a module.

    Raises:
        TrainingError: one is missing or has another shape.
    """
    with torch.no_grad():
        for name, own in module.state_dict().items():
            tensor = tensors.get(prefix + name)
            if tensor is None or tensor.shape != own.shape:
                raise TrainingError(f"the state does not fit the network: '{prefix}{name}' is missing or differs")
            own.copy_(tensor)
