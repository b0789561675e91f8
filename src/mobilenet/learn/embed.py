"""Training to embed: pictures of one identity close together, of different ones apart, also of unseen ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mobilenet.graph.graph import Graph, Weights
from mobilenet.learn.data import Batch, EvaluationData, Mixing
from mobilenet.learn.distil import read_teacher
from mobilenet.learn.embed_data import BalancedData, IdentityData, Views, read_identity_folder, without_single
from mobilenet.learn.embed_fit import fit_projection, score_of, with_projection
from mobilenet.learn.embed_measure import Verified, measure_embedder
from mobilenet.learn.embed_pairs import Pairs, check_far
from mobilenet.learn.embed_start import as_embedder, features_of, make_embedder
from mobilenet.learn.evaluate import outputs_of
from mobilenet.learn.margin import COSINES, ClassMatrix, arcface, cosface, hardest_triplets
from mobilenet.learn.options import MARGINS
from mobilenet.learn.prepare import identity_of, without_bad
from mobilenet.learn.progress import Figure
from mobilenet.learn.renew import renewed
from mobilenet.learn.start import Start, fingerprint
from mobilenet.learn.task import Fitted, Score, Setting, Task
from mobilenet.learn.transfer import EmbeddingCache, Embeddings, embed
from mobilenet.pictures.folders import PictureFolder
from mobilenet.run.torch_module import GraphModule

VIEWS, MOST_VIEWS = 8, 20_000  # changed pictures that the last layer is fitted to: of each one, and of all
SHOWN = 5  # names of identities that are left out


class Embed(Task):
    """Pictures of identities; the best network tells those of val apart best."""

    name = "embed"
    figure = Figure("balanced_accuracy", "balanced accuracy")

    def __init__(self, setting: Setting, folder: PictureFolder, made: Start) -> None:
        super().__init__(setting, as_embedder(made, setting.options))
        self.folder, self._made = folder, made
        self.teacher = read_teacher(setting.options, self.start, ())
        self.val = self._evaluation_data("val")
        self.pairs = Pairs.of(self.val.labels)
        check_far(self.pairs, setting.options.far)
        self._directions: Tensor | None = None  # of the training identities, once they are known
        self.margin = MARGINS[setting.options.loss] if setting.options.margin is None else setting.options.margin

    @classmethod
    def prepared(cls, setting: Setting) -> Embed:
        """See `Task.prepared`."""
        folder, left_out = read_identity_folder(setting.options.data)
        folder, single = without_single(without_bad(folder, setting))
        for split, names in {**left_out, "what is left": single}.items():
            if names:
                shown = ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
                setting.reporter.say(f"skipped: {len(names)} identities of one picture in {split}: {shown}")
        return cls(setting, folder, make_embedder(setting.options))

    @property
    def samples(self) -> int:
        """How many pictures the training split has."""
        return len(self.folder.splits["train"])

    @property
    def identities(self) -> int:
        """How many identities the training split has; their labels come first."""
        return len({sample.label for sample in self.folder.splits["train"]})

    @property
    def size(self) -> int:
        """Numbers of an embedding."""
        graph = self.start.contents.graph
        return prod(graph.types[graph.outputs["embedding"]].shape)

    def identity(self) -> dict[str, Any]:
        """Samples, identities and start."""
        return identity_of(self.folder, self.start)

    def _evaluation_data(self, split: str) -> EvaluationData:
        return EvaluationData(
            self.folder.splits[split],
            self.start.preprocessing,
            **self.setting.evaluation(kept=split == "val"),
        )

    # -- the last layer ------------------------------------------------------------------------------------

    def fit(self) -> Fitted | None:
        """The start with a last layer that fits the features as they are, where these are somebody's."""
        if not self.setting.options.pretrained:
            return None
        machine = self.setting.machine
        made = renewed(self._made, self.folder.splits["train"], machine, self.setting.options.workers)
        self.start = as_embedder(made, self.setting.options)
        weights, score, text = self._fitted()
        agreed = {name: machine.agreed(array) for name, array in weights.items()}
        self.start = replace(self.start, contents=replace(self.start.contents, weights=agreed))
        return Fitted(score, text)

    def _fitted(self) -> tuple[Weights, Score, str]:
        """The start's weights, with a fitted last layer if that is new."""
        machine, setting, contents = self.setting.machine, self.setting, self.start.contents
        features = features_of(self.start)
        if features is None:
            module = GraphModule.from_weights(contents.graph, contents.weights).to(machine.device).eval()
            return contents.weights, self.score(module), "the embedding as it is"
        module = GraphModule.from_weights(features.graph, features.weights).to(machine.device).eval()
        cache = EmbeddingCache(Path(setting.options.project) / ".embeddings", fingerprint(features), machine)
        train = self._evaluation_data("train")
        views = self._views()
        total = len(train.samples) + len(self.val.samples) + len(views.samples)
        with setting.reporter.task("embedding", total) as advance:
            how: dict[str, Any] = {"advance": advance, "check": setting.check}
            plain, val = (embed(module, data, cache, machine, **how) for data in (train, self.val))
            changed = outputs_of(module, views, "embedding", machine, **how)
        both = Embeddings(np.concatenate([plain.features, changed]), np.concatenate([plain.labels, views.labels]))
        projection = fit_projection(both, val, self.pairs, self.size)
        self._directions = torch.from_numpy(projection.directions(plain)).float()
        text = f"last layer fitted to fixed features (shrinkage {projection.shrinkage:g})"
        return with_projection(contents.weights, projection, both), projection.score, text

    def _views(self) -> Views:
        """The training pictures as the loop would show them: what they vary in belongs to no identity."""
        count = max(1, min(VIEWS, MOST_VIEWS // self.samples))
        return Views(self._data(IdentityData), count)

    # -- the loop ------------------------------------------------------------------------------------------

    def beside(self, graph: Graph) -> dict[str, nn.Module]:
        """The direction of each training identity, which the triplet loss does not have."""
        beside = super().beside(graph)
        if self.setting.options.loss != "triplet":
            beside["classes"] = ClassMatrix(
                self.identities, self.size, self.setting.options.seed, self._directions
            )
        return beside

    def batches(self) -> IdentityData:
        """Augmented pictures and their identities."""
        options = self.setting.options
        if options.loss == "triplet":
            return self._data(partial(BalancedData, group=options.pictures_per_identity))
        return self._data(IdentityData)

    def _data(self, kind: Callable[..., IdentityData]) -> IdentityData:
        options = self.setting.options
        assert options.crop_area is not None
        what = (
            self.folder.splits["train"],
            self.identities,
            self.start.preprocessing,
            self.setting.augmentation(),
            Mixing(),
        )
        return kind(
            *what,
            **self.setting.training(),
        )

    def losses(self, outputs: dict[str, Tensor], batch: Batch, images: Tensor) -> Tensor:
        """That of --loss, and the distance from what the teacher says."""
        options, labels = self.setting.options, batch.targets.to(self.setting.machine.device)
        if options.loss == "triplet":
            losses = hardest_triplets(outputs["embedding"].flatten(1), labels, margin=self.margin)
        else:
            loss = arcface if options.loss == "arcface" else cosface
            losses = loss(outputs[COSINES], labels, margin=self.margin, scale=options.scale)
        if self.teacher is not None:
            losses = self.teacher.mixed(losses, outputs, images, self.setting.machine)
        return losses

    def score(self, module: GraphModule) -> Score:
        """Balanced accuracy on the pairs of val, and 1 - AUC in place of a loss, which unseen identities lack."""
        machine = self.setting.machine
        return score_of(outputs_of(module, self.val, "embedding", machine, check=self.setting.check), self.pairs)

    def measure(self, module: GraphModule) -> Verified:
        """Calibrated on val, measured on val and test."""
        data = {"val": self.val}
        if "test" in self.folder.splits:
            data["test"] = self._evaluation_data("test")
        return measure_embedder(module, data, self.setting)
