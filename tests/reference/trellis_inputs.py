"""TRELLIS cases of what comes before sampling: pictures, texts and meshes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from dream_cad.models.trellis.preprocess import image_tensor, object_box, prepare_image
from dream_cad.models.trellis.voxelize import voxelize
from dream_cad.nn.clip_text import TextConfig, TextEncoder
from dream_cad.nn.clip_tokenizer import ClipTokenizer
from tests.reference import formula_weights
from tests.reference.cases import Case

Outputs = dict[str, Any]

_MEAN, _STD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))


def preprocess(case: Case) -> Outputs:
    if case.has("vertices"):
        return {"coords": voxelize(case.input("vertices"), case.input("faces"), 64)}
    rgba = Image.fromarray(case.input("image"))
    picture = prepare_image(rgba)
    pixels = np.asarray(picture)
    tensor = image_tensor(picture, 518)
    normed = (tensor[0] - _MEAN[:, None, None]) / _STD[:, None, None]
    return {
        "out_size": np.array(pixels.shape),
        "out_sub7": pixels[::7, ::7],
        "out_col_mean": pixels.astype(np.float32).mean(axis=0),
        "out_row_mean": pixels.astype(np.float32).mean(axis=1),
        "dino_in_sub14": normed[:, ::14, ::14],
        "alpha_bbox_xyxy": np.array(object_box(np.asarray(rgba)[..., 3])),
    }


def text_encoder(case: Case) -> Outputs:
    config = case.config
    if "prompts" in config:
        return {"input_ids": ClipTokenizer.bundled(pad="end")(config["prompts"])}
    sizes = {key: value for key, value in config.items() if key not in ("ids", "pad")}
    module = TextEncoder(TextConfig(**sizes))
    formula_weights.fill(module, case.prefix)
    return {"cond": module.eval()(case.tensor("input_ids"))}
