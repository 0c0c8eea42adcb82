"""What Step 2 needs of an mmpretrain classifier: its last features and its linear layer."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from dap.cam import MergedCam, multi_view_cam

from .settings import PseudoBoxSettings

PROBE_SIDE = 64


class CamClassifier:
    """A classifier whose class activation maps can be computed.

    That is one that ends in global average pooling and one linear layer, as mmpretrain's
    ``GlobalAveragePooling`` + ``LinearClsHead``. Whether a model does is measured on a probe
    image: the mean of its maps must be its logits, whatever its parts are called.

    Args:
        model: An mmpretrain ``ImageClassifier``.

    Attributes:
        weight: Weight of the linear layer, shape (K, C).
        bias: Its bias, shape (K,), zeros if it has none.

    Raises:
        ValueError: If the model has no single linear layer in its head, or does something else
            between the last feature map and the logits than averaging and that layer, or its
            weights are not finite.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        linear = _linear_layer(model)
        self.weight = linear.weight.detach()
        self.bias = torch.zeros_like(self.weight[:, 0])
        if linear.bias is not None:
            self.bias = linear.bias.detach()
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise ValueError(
                f"classifier {type(model).__name__}: its linear layer holds weights that are not "
                "finite. Its training has diverged; take an earlier checkpoint"
            )
        training = model.training
        model.eval()
        try:
            self._verify()
        finally:
            model.train(training)

    @property
    def num_classes(self) -> int:
        """Number of classes K of the linear layer."""
        return len(self.weight)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weight.device

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise a batch as the model's data preprocessor does, shape (N, C, H, W)."""
        preprocessor = self.model.data_preprocessor
        normalized = preprocessor({"inputs": images}, training=False)["inputs"]
        return normalized[..., : images.shape[-2], : images.shape[-1]]

    def features(self, images: Tensor) -> Tensor:
        """Compute the last feature map of normalised images, shape (N, C, h, w)."""
        return self.model.extract_feat(images, stage="backbone")[-1]

    @torch.inference_mode()
    def maps(
        self, image: Tensor, labels: Tensor, settings: PseudoBoxSettings
    ) -> tuple[MergedCam, Tensor]:
        """Compute the merged maps of one image; the model must be in evaluation mode.

        Args:
            image: BGR, uint8, shape (C, H, W).
            labels: Its classes, shape (L,).
            settings: Views and rule.

        Returns:
            The maps of all labels, and the logits averaged over the views, shape (K,).
        """
        pooled: list[Tensor] = []

        def features(batch: Tensor) -> Tensor:
            found = self.features(batch)
            pooled.append(found.float().mean(dim=(2, 3)))
            return found

        merged = multi_view_cam(
            image.to(self.device),
            features,
            self.weight,
            labels.to(self.device),
            settings.views,
            settings.rule,
            self.normalize,
        )
        return merged, torch.cat(pooled).mean(dim=0) @ self.weight.T + self.bias

    def weights_sha256(self) -> str:
        """Hash of all parameters and buffers: two models with the same hash give the same maps."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def _verify(self) -> None:
        generator = torch.Generator().manual_seed(0)
        probe = torch.rand(1, 3, PROBE_SIDE, PROBE_SIDE, generator=generator) * 255
        normalized = self.normalize(probe.to(self.device))
        features = self.features(normalized)
        if features.ndim != 4 or features.shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"classifier {type(self.model).__name__}: the backbone's last output has shape "
                f"{tuple(features.shape)}; expected a feature map (N, {self.weight.shape[1]}, H, "
                "W) that the linear layer fits. Class activation maps need a backbone with global "
                "average pooling and a linear head; a vision transformer's tokens give none"
            )
        own = features.mean(dim=(2, 3)) @ self.weight.T + self.bias
        logits = self.model.head(self.model.extract_feat(normalized, stage="neck"))
        if logits.shape != own.shape or not torch.allclose(logits, own, rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"classifier {type(self.model).__name__}: head {type(self.model.head).__name__} "
                "does not give the linear layer of the averaged features (largest difference "
                f"{_largest_difference(logits, own)}), so the class activation map is not defined "
                "by its weights. Use a classifier with GlobalAveragePooling and LinearClsHead"
            )


def _linear_layer(model: nn.Module) -> nn.Linear:
    head = getattr(model, "head", None)
    if not hasattr(model, "extract_feat") or head is None:
        raise ValueError(
            f"model {type(model).__name__}: expected an mmpretrain ImageClassifier with backbone, "
            "neck and linear head, found one without a head. Give the config of a classifier"
        )
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    if len(layers) != 1:
        raise ValueError(
            f"classifier head {type(head).__name__}: expected exactly one linear layer, found "
            f"{len(layers)}. Class activation maps need global average pooling and one linear "
            "layer, such as GlobalAveragePooling and LinearClsHead"
        )
    return layers[0]


def _largest_difference(a: Tensor, b: Tensor) -> str:
    if a.shape != b.shape:
        return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    return f"{float((a - b).abs().max()):.3g}"
