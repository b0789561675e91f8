"""Imports of other projects' networks beside the projects themselves: do both give the same logits?

    python bench/import_parity.py [--projects timm,torchvision,keras] [--only PATTERN]

Every architecture is built by its own project with random weights, gets batch norm statistics of its own
activations (moved by some noise), is saved by that project, read by `mobilenet.files.imports` and run by the
engine, at its own resolution and at another. The error is the largest difference over the largest logit; `varies`
is how far two pictures differ in the same unit, so that a network that answers the same to everything would show.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import torch

from mobilenet.files.imports.read import read_import
from mobilenet.model import Model

LIMIT = 1e-4  # of the largest logit
OTHER = {224: 192, 256: 224, 320: 256, 384: 320, 448: 384, 480: 384, 544: 448}


class Peer(NamedTuple):
    """One network of a project: how to build it, how to save it, what it answers, (N, H, W, C) -> (N, classes)."""

    project: str
    name: str
    resolution: int
    build: Callable[[], Any]
    save: Callable[[Any, Path], Path]
    answer: Callable[[Any, np.ndarray], np.ndarray]
    words: dict[str, Any]


def declare_torchvision_operators() -> None:
    """torchvision's Python part looks for two operators of its compiled part, which a CPU build may lack."""
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)


_libraries: list[Any] = []  # what is declared lives as long as its library


def settled(net: torch.nn.Module, side: int) -> torch.nn.Module:
    """Random weights with batch norm statistics of what really flows, moved by noise; layer scales that matter.

    Each norm takes the statistics of its own input just before it is used, so that values neither grow nor vanish:
    in a net that is far from that, the project's own float32 answer is not within 1e-4 of its float64 answer.
    """
    generator = torch.Generator().manual_seed(0)

    def settle(norm: Any, inputs: Any) -> None:
        axes = [0, *range(2, inputs[0].dim())]
        mean, variance = inputs[0].mean(axes), inputs[0].var(axes, correction=0)
        variance = variance.clamp(min=float(variance.mean()) / 4)  # of few samples some are nearly alike
        channels = len(mean)
        norm.running_mean.copy_(mean + variance.sqrt() * torch.randn(channels, generator=generator) * 0.1)
        norm.running_var.copy_(variance * (0.8 + 0.4 * torch.rand(channels, generator=generator)))
        norm.weight.uniform_(0.6, 1.4, generator=generator)
        norm.bias.normal_(0, 0.2, generator=generator)

    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("layer_scale.gamma"):
                parameter.uniform_(0.2, 0.6, generator=generator)
            if name.endswith(("query.proj.weight", "key.proj.weight")):
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)  # no saturated softmax
        norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
        net.eval()(torch.randn(4, 3, side, side, generator=generator))
        for hook in hooks:
            hook.remove()
    return net


def torch_answer(net: torch.nn.Module, batch: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))).numpy()


def timm_peers() -> Iterator[Peer]:
    declare_torchvision_operators()
    import json

    import timm
    from safetensors.torch import save_file

    def save(net: Any, folder: Path) -> Path:
        """As timm's own `save_for_hf` lays a folder out."""
        cfg = {k: v for k, v in net.pretrained_cfg.items() if k in ("input_size", "mean", "std", "interpolation")}
        (folder / "config.json").write_text(
            json.dumps(
                {"architecture": net.default_cfg["architecture"], "num_classes": 1000, "pretrained_cfg": cfg}
            )
        )
        save_file(net.state_dict(), folder / "model.safetensors")
        return folder

    names = [n for n in timm.list_models("*mobilenet*") if "mobilenetv5" not in n and "edgetpu_v2" not in n]
    for name in names:
        side = timm.get_pretrained_cfg(name).input_size[1]

        def build(name: str = name, side: int = side) -> Any:
            return settled(timm.create_model(name), side)

        yield Peer("timm", name, side, build, save, torch_answer, {})


def torchvision_peers() -> Iterator[Peer]:
    declare_torchvision_operators()
    import torchvision

    def save(net: Any, folder: Path) -> Path:
        torch.save(net.state_dict(), folder / "weights.pth")
        return folder / "weights.pth"

    def peer(label: str, maker: Callable[..., Any], **words: Any) -> Peer:
        return Peer(
            "torchvision", label, 224, lambda: settled(maker(weights=None, **words), 224), save, torch_answer, {}
        )

    models = torchvision.models
    for width in (1.0, 1.4, 1.3, 0.75, 0.5, 0.35):
        yield peer(f"mobilenet_v2 {width:g}", models.mobilenet_v2, width_mult=width)
    for size in ("large", "small"):
        maker = getattr(models, f"mobilenet_v3_{size}")
        for width in (1.0, 1.25, 0.75, 0.5, 0.35):
            yield peer(f"mobilenet_v3_{size} {width:g}", maker, width_mult=width)
        yield peer(f"mobilenet_v3_{size} reduced_tail", maker, reduced_tail=True)


def keras_peers() -> Iterator[Peer]:
    import keras

    def save_as(suffix: str) -> Callable[[Any, Path], Path]:
        def save(net: Any, folder: Path) -> Path:
            path = folder / f"net{suffix}"
            net.save_weights(path) if suffix == ".weights.h5" else net.save(path)
            return path

        return save

    def answer(net: Any, batch: np.ndarray) -> np.ndarray:
        at_size = net.rebuilt(batch.shape[1])
        return np.asarray(keras.ops.convert_to_numpy(at_size(batch, training=False)))

    def peer(label: str, suffix: str, maker: Callable[..., Any], **words: Any) -> Peer:
        words |= {"weights": None, "classifier_activation": None}
        if "V3" in label:
            words["include_preprocessing"] = False  # so that both get the same numbers

        def build() -> Any:
            keras.utils.set_random_seed(0)
            net = maker(input_shape=(224, 224, 3), **words)
            keras_settled(net, keras)
            net.rebuilt = rebuilt(net)
            return net

        def rebuilt(net: Any) -> Callable[[int], Any]:
            """The same weights for pictures of another size: Keras fixes the size when it builds."""

            def at(side: int) -> Any:
                other = maker(input_shape=(side, side, 3), **words)
                other.set_weights(net.get_weights())
                return other

            return at

        return Peer("Keras", f"{label} ({suffix})", 224, build, save_as(suffix), answer, {})

    apps = keras.applications
    suffixes = (".keras", ".h5", ".weights.h5")
    number = 0
    for label, maker, widths, forms in (
        ("MobileNet", apps.MobileNet, (1.0, 0.75, 0.5, 0.25), ({},)),
        ("MobileNetV2", apps.MobileNetV2, (1.4, 1.3, 1.0, 0.75, 0.5, 0.35), ({},)),
        ("MobileNetV3Large", apps.MobileNetV3Large, (1.25, 1.0, 0.75, 0.5, 0.35), ({}, {"minimalistic": True})),
        ("MobileNetV3Small", apps.MobileNetV3Small, (1.25, 1.0, 0.75, 0.5, 0.35), ({}, {"minimalistic": True})),
    ):
        for form in forms:
            for width in widths:
                yield peer(
                    f"{label}{' minimalistic' if form else ''} {width:g}",
                    suffixes[number % 3],
                    maker,
                    alpha=width,
                    **form,
                )
                number += 1


def keras_settled(net: Any, keras: Any) -> None:
    """Statistics of what flows, layer by layer: each norm sees what those before it, already set, let through."""
    generator = np.random.default_rng(0)
    norms = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        channels = norm.gamma.shape[0]
        norm.gamma.assign(generator.uniform(0.6, 1.4, channels))
        norm.beta.assign(generator.normal(0, 0.2, channels))
        norm.momentum, norm.kept = 0.0, norm.momentum
    net(generator.standard_normal((2, 224, 224, 3)).astype(np.float32), training=True)
    for norm in norms:
        statistics = (norm.moving_mean, norm.moving_variance)
        mean, variance = (np.asarray(keras.ops.convert_to_numpy(values)) for values in statistics)
        norm.moving_mean.assign(mean + generator.normal(0, 0.05, mean.shape))
        norm.moving_variance.assign(variance * generator.uniform(0.8, 1.2, variance.shape))
        norm.momentum = norm.kept


PROJECTS = {"timm": timm_peers, "torchvision": torchvision_peers, "keras": keras_peers}


def compared(peer: Peer, net: Any, path: Path, side: int) -> tuple[float, float]:
    """(largest difference, difference between two pictures), both over the largest logit."""
    model = Model.of(read_import(path, resolution=side, **peer.words))
    batch = np.random.default_rng(side).standard_normal((2, side, side, 3)).astype(np.float32)
    expected, found = peer.answer(net, batch), model.run(batch)["logits"]
    largest = np.abs(expected).max()
    return float(np.abs(found - expected).max() / largest), float(
        np.abs(expected[0] - expected[1]).max() / largest
    )


def measured(peer: Peer, folder: Path) -> tuple[list[tuple[int, float, float]], float]:
    """(side, error, varies) at both resolutions, and the seconds of one import."""
    net = peer.build()
    path = peer.save(net, folder)
    start = time.perf_counter()
    read_import(path, **peer.words)
    spent = time.perf_counter() - start
    sides = (peer.resolution, OTHER[peer.resolution])
    return [(side, *compared(peer, net, path, side)) for side in sides], spent


def main() -> int:
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--projects", default=",".join(PROJECTS))
    words.add_argument("--only", default="*", help="a pattern with * and ? for the names")
    options = words.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print("| project | network | resolution | error | other | error | varies | import, s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    worst, count = 0.0, 0
    for project in options.projects.split(","):
        for peer in PROJECTS[project]():
            if not fnmatchcase(peer.name, options.only):
                continue
            with tempfile.TemporaryDirectory() as folder:
                (own, other), spent = measured(peer, Path(folder))
            print(
                f"| {peer.project} | {peer.name} | {own[0]} | {own[1]:.1e} | {other[0]} | {other[1]:.1e} "
                f"| {min(own[2], other[2]):.2f} | {spent:.2f} |",
                flush=True,
            )
            worst, count = max(worst, own[1], other[1]), count + 1
            gc.collect()
    print(f"\n{count} networks, largest error {worst:.1e} of the largest logit (at most {LIMIT:.0e} is wanted)")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
