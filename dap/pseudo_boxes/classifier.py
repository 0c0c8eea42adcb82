"""What Step 2 needs of an mmpretrain classifier: its last features and its linear layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from dap.cam import MergedCam, multi_view_cam

from .fast_forward import fold_batch_norm
from .settings import AUTOCAST, PseudoBoxSettings

PROBE_SIDE = 224


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
        given: Any = model
        self.model: Any = given.module if is_model_wrapper(model) else given
        linear = _linear_layer(self.model)
        self._backbone: Any = getattr(self.model, "backbone", None)
        self.weight = linear.weight.detach()
        self.bias = torch.zeros_like(self.weight[:, 0])
        if linear.bias is not None:
            self.bias = linear.bias.detach()
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise ValueError(
                f"classifier {type(model).__name__}: its linear layer holds weights that are not "
                "finite. Its training has diverged; take an earlier checkpoint"
            )
        with evaluating(self.model):
            self._beyond_weights = self._verify()

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
        return normalized[..., : images.shape[-2], : images.shape[-1]].to(self.weight.dtype)

    def features(self, images: Tensor) -> Tensor:
        """Compute the last feature map before the pooling, of normalised images (N, C, h, w)."""
        found = self._backbone(images)
        if isinstance(self.model.neck, nn.Sequential):
            for layer in list(self.model.neck)[:-1]:  # what fuses stages, as HRNet's
                found = layer(found)
        return found[-1] if isinstance(found, tuple | list) else found

    def speed_up(self) -> None:
        """From now on compute features by a faster copy of the backbone, its norms folded."""
        probe = self.normalize(probe_image().to(self.device))
        fast: Any = fold_batch_norm(self.model.backbone, probe)
        self._backbone = fast.to(memory_format=torch.channels_last)

    def features_with(self, autocast: str | None) -> Callable[[Tensor], Tensor]:
        """The function :meth:`features`, in half precision where ``autocast`` says so."""

        def features(images: Tensor) -> Tensor:
            images = images.contiguous(memory_format=torch.channels_last)
            if autocast is None:
                return self.features(images)
            with torch.autocast(self.device.type, AUTOCAST[autocast]):
                return self.features(images)

        return features

    @torch.inference_mode()
    def maps(self, image: Tensor, labels: Tensor, settings: PseudoBoxSettings) -> MergedCam:
        """Compute the merged maps of one image; the model must be in evaluation mode.

        Args:
            image: BGR, uint8, shape (C, H, W).
            labels: Its classes, shape (L,).
            settings: Views and rule.

        Returns:
            The maps of all labels.
        """
        return multi_view_cam(
            image.to(self.device),
            self.features_with(settings.autocast),
            self.weight,
            labels.cpu(),
            settings.views,
            settings.rule,
            self.normalize,
        )

    def weights_sha256(self) -> str:
        """Hash of all parameters and buffers, of the normalisation and of the map's stride."""
        digest = hashlib.sha256(self._beyond_weights.encode())
        for name, value in sorted(self.model.state_dict().items()):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def _verify(self) -> str:
        """Compare the mean of the maps with the logits; describe what decides and is no weight."""
        try:
            normalized = self.normalize(probe_image().to(self.device))
            features = self.features(normalized)
            logits = self.model.head(self.model.extract_feat(normalized, stage="neck"))
            shape = tuple(features.shape)
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"classifier {self._name()}: it failed on a colour image of {PROBE_SIDE} x "
                f"{PROBE_SIDE} px ({type(error).__name__}: {error}). Expected an mmpretrain "
                "ImageClassifier of colour images that ends in global average pooling and one "
                "linear layer"
            ) from error
        if features.ndim != 4 or shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"classifier {self._name()}: what is pooled has shape {shape}; expected a feature "
                f"map (N, {self.weight.shape[1]}, H, W) that the linear layer fits. Class "
                "activation maps need a backbone with global average pooling and a linear head; "
                "the tokens of a vision transformer give none"
            )
        own = features.mean(dim=(2, 3)) @ self.weight.T
        given = logits - self.bias if torch.is_tensor(logits) else logits
        if not _nearly_equal(given, own):
            raise ValueError(
                f"classifier {self._name()}: its logits are not the linear layer of the averaged "
                "features, so the class activation map is not defined by its weights. Use a "
                "classifier with GlobalAveragePooling and LinearClsHead"
            )
        strides = f"{PROBE_SIDE / shape[2]:g} {PROBE_SIDE / shape[3]:g}"
        preprocessor = self.model.data_preprocessor
        settings = [getattr(preprocessor, name, None) for name in ("mean", "std", "to_rgb")]
        settings = [x.flatten().tolist() if torch.is_tensor(x) else x for x in settings]
        return f"normalisation {settings}, stride {strides}"

    def _name(self) -> str:
        head = getattr(self.model, "head", None)
        return f"{type(self.model).__name__} with {type(head).__name__}"


def probe_image() -> Tensor:
    """An image of random pixels in [0, 255], float32, shape (1, 3, 224, 224)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, PROBE_SIDE, PROBE_SIDE, generator=generator) * 255


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode; give each module its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


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


def _nearly_equal(given: Any, own: Tensor) -> bool:
    """Whether logits without bias agree to a thousandth of the largest."""
    if not torch.is_tensor(given) or given.shape != own.shape:
        return False
    tolerance = 1e-3 if own.dtype == torch.float32 else 2e-2
    return bool((given - own).abs().max() <= tolerance * own.abs().max() + 1e-12)
