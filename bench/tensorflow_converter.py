"""A network of ours through TensorFlow's own converter to an int8 .tflite file; `export_speed.py` runs this.

    PYTHON-WITH-TENSORFLOW bench/tensorflow_converter.py NETWORK.npz OUT.tflite

NETWORK.npz holds the weights and the pictures to calibrate on; NETWORK.json the graph. Needs TensorFlow and
nothing of this package. Batch norms are folded before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

ACTIVATIONS = {
    "none": lambda x: x,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "hard_sigmoid": lambda x: tf.nn.relu6(x + 3.0) * (1 / 6),
    "hard_swish": lambda x: x * (tf.nn.relu6(x + 3.0) * (1 / 6)),
}


def main() -> None:
    """Builds, converts, writes."""
    given, target = map(Path, sys.argv[1:3])
    graph, stored = json.loads(given.with_suffix(".json").read_text()), np.load(given)
    ((name, kind),) = graph["inputs"].items()

    @tf.function(input_signature=[tf.TensorSpec([1, *kind["shape"]], tf.float32)])
    def network(picture: Any) -> Any:
        values = {name: picture}
        for node in graph["nodes"]:
            weights = {
                part: stored[f"weight/{node['name']}.{part}"]
                for part in ("weight", "bias")
                if f"weight/{node['name']}.{part}" in stored
            }
            values[node["name"]] = computed(node["operator"], [values[one] for one in node["inputs"]], weights)
        return values[graph["outputs"]["logits"]]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([picture[None]] for picture in stored["pictures"])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    target.write_bytes(converter.convert())


def computed(operator: dict[str, Any], read: list[Any], weights: dict[str, np.ndarray]) -> Any:
    """What an operator is in TensorFlow."""
    kind, source = operator["kind"], read[0]
    if kind in ("conv", "depthwise_conv"):
        made = convolved(operator, source, weights["weight"])
    elif kind == "dense":
        made = tf.matmul(source, weights["weight"].T)
    elif kind == "average_pool":
        made = pooled(operator, source)
    elif kind == "mean":
        made = tf.reduce_mean(source, [1, 2], keepdims=bool(operator.get("keep_axes", False)))
    elif kind == "add":
        made = source + read[1]
    elif kind == "mul":
        made = source * read[1]
    elif kind == "reshape":
        made = tf.reshape(source, [1, *operator["shape"]])
    elif kind == "activation":
        made = source
    else:
        raise SystemExit(f"no '{kind}' here")
    if "bias" in weights:
        made = tf.nn.bias_add(made, weights["bias"])
    return ACTIVATIONS[operator.get("activation", "relu" if kind == "activation" else "none")](made)


def convolved(operator: dict[str, Any], source: Any, weight: np.ndarray) -> Any:
    """With SAME where the padding is that, otherwise with zeros around."""
    top, bottom, left, right = operator.get("padding", (0, 0, 0, 0))
    same = operator.get("same", False)
    if any((top, bottom, left, right)) and not same:
        source = tf.pad(source, [[0, 0], [top, bottom], [left, right], [0, 0]])
    stride, padding = operator.get("stride", (1, 1)), "SAME" if same else "VALID"
    if operator["kind"] == "conv":
        return tf.nn.conv2d(source, weight.transpose(1, 2, 3, 0), stride, padding)
    return tf.nn.depthwise_conv2d(source, weight[..., None], [1, *stride, 1], padding)


def pooled(operator: dict[str, Any], source: Any) -> Any:
    """Padding does not count as pixels, which TensorFlow says as SAME alone."""
    same = operator.get("same", False)
    if any(operator.get("padding", ())) and not same:
        raise SystemExit("no 'average_pool' with padding of its own here")
    stride = operator.get("stride", (1, 1))
    return tf.nn.avg_pool2d(source, operator["kernel"], stride, "SAME" if same else "VALID")


if __name__ == "__main__":
    main()
