"""What a checkpoint of another architecture looks like, so that an error can say it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# (pattern that some tensor's name matches from its beginning, what that is); the first that matches counts.
_MARKS = (
    (r"layer1\.0\.conv\d|conv1_conv|conv2_block1", "a ResNet"),
    (r"features\.denseblock|conv2_block1_0_bn", "a DenseNet"),
    (r"features\.\d+\.\d+\.block\.\d+\.\d+|stages\.\d+\.blocks\.\d+\.(gamma|conv_dw)|convnext", "a ConvNeXt"),
    (r".*attn\.qkv|encoder\.layers|.*self_attention|cls_token|vit\.", "a vision transformer"),
    (r".*(upsample|msfa|multi_scale|ffn_layer)", "a MobileNetV5"),
    (r"_conv_stem|_blocks\.|block1a_|block2a_|features\.1\.0\.block", "an EfficientNet"),
    (r"blocks\.\d+\.\d+\.ghost", "a GhostNet"),
    (r"backbone\..*|classifier\.(cbr|low_classifier)|head\.classification_head", "a detector or segmenter"),
    (r"Conv2d_1a|Mixed_5b", "an Inception net"),
    (r"features\.\d+\.squeeze", "a SqueezeNet"),
    (r"stage2\.0\.branch", "a ShuffleNet"),
    (r"features\.0\.(weight|bias)$|classifier\.6\.|block1_conv1", "a VGG or AlexNet"),
    (r".*(lora_A|q_proj|input_layernorm)", "a language model"),
    (r"quant|.*(_packed_params|zero_point)", "a quantised torch model"),
)
_GATED_V2 = re.compile(r"blocks\.\d+\.\d+\.se\.conv_reduce")


def looks_like(names: Iterable[str]) -> str:
    """The architecture that the names are known for, with its article; empty if none is known."""
    names = list(names)
    if "bn2.weight" in names and any(_GATED_V2.match(name) for name in names):
        return "an EfficientNet"
    return next((kind for mark, kind in _MARKS if any(re.match(mark, name) for name in names)), "")
