"""What Step 2 needs of a classifier: maps, logits and a hash of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dap.cam import MergedCam, View, ViewMaps, multi_view_cam
from dap.cam.batches import PAD_MULTIPLE
from dap.classifiers.choice import choose_method, describe, probe_image
from dap.classifiers.fast_forward import fold_batch_norm
from dap.classifiers.methods import Context

from .settings import AUTOCAST, PseudoBoxSettings


class CamClassifier:
    """A classifier whose class activation maps can be computed.

    The maps are exact if the classifier ends in global average pooling and one linear layer, with
    or without a norm between them (:class:`dap.classifiers.Readout`). Otherwise they are computed
    by gradient: of the attention of the class token if there is one
    (:func:`dap.classifiers.attention_maps`), else of a feature map
    (:func:`dap.classifiers.gradient_maps`). The method is chosen by a test on a probe image, not by
    the names of modules: the means of exact maps must equal the logits.

    Args:
        model: An mmpretrain ``ImageClassifier``, or a classifier that holds the network of another
            library as ``model``, such as mmpretrain's ``TimmClassifier``.
        map_method: ``'exact'``, ``'ag-cam'``, ``'grad-cam'``, or ``'gradient'`` for either of the
            last two. Defaults to the first method in this order that the classifier supports.

    Attributes:
        weight: Weight of the linear layer, shape (K, C); C is 0 with gradients.
        bias: Bias of the linear layer, shape (K,), zeros if it has none.
        map_method: ``'exact'`` or ``'gradient'``.
        reason: Why the maps are not exact; empty if they are.
        input_size: Height and width of images, if the network takes only one size; else None.
        pad_multiple: The sides of padded views are multiples of this number of pixels.

    Raises:
        ValueError: If the model is no classifier of colour images, its maps cannot be computed by
            the method, or its linear layer is not finite.
    """

    def __init__(self, model: nn.Module, map_method: str | None = None) -> None:
        wrapped: Any = model
        self.model: Any = wrapped.module if is_model_wrapper(model) else wrapped
        _require_classifier(self.model)
        _require_finite_head(self.model)
        with evaluating(self.model):
            choice = choose_method(self.model, self.normalize, map_method)
        self._method, self._side, self.reason = choice.method, choice.side, choice.reason
        self.weight, self.bias = choice.method.weight, choice.method.bias
        self.map_method = choice.method.name
        self.input_size = None if choice.any_size else (choice.side, choice.side)
        self.pad_multiple = PAD_MULTIPLE
        if self.input_size is not None:
            self.pad_multiple = 1
        elif choice.side % choice.grid_hw[0] == 0:
            stride = choice.side // choice.grid_hw[0]  # may be 14, which does not divide 32
            self.pad_multiple = PAD_MULTIPLE if PAD_MULTIPLE % stride == 0 else stride
        strides = f"{choice.side / choice.grid_hw[0]:g} {choice.side / choice.grid_hw[1]:g}"
        self._hashed_with_weights = f"{self._normalisation()}, stride {strides}"
        if choice.method.description or self.input_size is not None:
            self._hashed_with_weights += (
                f", maps {choice.method.description}, size {self.input_size}"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.bias)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.bias.device

    @property
    def architecture(self) -> str:
        """Class name of the backbone, or of the network of another library."""
        return type(getattr(self.model, "backbone", None) or self.model.model).__name__

    @property
    def feature_map(self) -> str:
        """Name of the module whose output is the feature map."""
        return self._method.feature_map

    @property
    def map_description(self) -> str:
        """Description of how the maps are computed."""
        if self.map_method == "exact":
            return "exact: the mean of a map is the logit of its class"
        return f"{self._method.description}, because {self.reason}"

    def normalize(self, images: Tensor) -> Tensor:
        """Normalise a batch by the data preprocessor of the model, shape (N, C, H, W)."""
        parameter = next(self.model.parameters())
        preprocessor = self.model.data_preprocessor
        images = images.to(parameter.device)
        normalized = preprocessor({"inputs": images}, training=False)["inputs"]
        return normalized[..., : images.shape[-2], : images.shape[-1]].to(parameter.dtype)

    def features(self, images: Tensor) -> Tensor:
        """Compute the feature map of normalised images, shape (N, C, h, w)."""
        return self._method.features(images)

    def speed_up(self) -> None:
        """Switch to a copy of the network that is faster, with batch norms folded."""
        if not self._method.description or any(
            isinstance(module, _BatchNorm) for module in self.model.modules()
        ):
            probe = self.normalize(probe_image(self._side))
            self._method.speed_up(partial(_folded, probe=probe))

    def features_with(self, autocast: str | None) -> Callable[[Tensor], Tensor]:
        """Return :meth:`features` as a function, in half precision if ``autocast`` is set."""

        def features(images: Tensor) -> Tensor:
            images = images.contiguous(memory_format=torch.channels_last)
            with self._context(autocast)():
                return self.features(images)

        return features

    def view_maps(self, autocast: str | None) -> ViewMaps:
        """Return the function from normalised views to maps, in half precision by ``autocast``."""
        return self._method.view_maps(self._context(autocast))

    def logits(self, pooled: Tensor, views: int) -> Tensor:
        """Return logits, summed over views, from ``BatchMaps.pooled`` of the maps of the views."""
        return self._method.logits(pooled, views)

    def views(self, settings: PseudoBoxSettings) -> tuple[View, ...]:
        """Return the views of a run: those of its settings, if any image size is possible.

        For a network with one input size, each image is resized to that size, in one scale.

        Raises:
            ValueError: If the network has one input size and the rule is ``'release'``, which
                needs square cells.
        """
        if self.input_size is None:
            return settings.views
        if settings.rule == "release":
            raise ValueError(
                f"rule: {settings.rule!r} needs a classifier that takes images of any size; "
                f"{describe(self.model)} takes only {self.input_size[1]} x {self.input_size[0]} "
                "px. Use the rule 'extent' or 'paper'"
            )
        return tuple(View(self.input_size, flip) for flip in dict.fromkeys((False, settings.flip)))

    @torch.inference_mode()
    def maps(self, image: Tensor, labels: Tensor, settings: PseudoBoxSettings) -> MergedCam:
        """Compute the merged maps of one image; the model must be in evaluation mode.

        Args:
            image: BGR, uint8, shape (C, H, W).
            labels: Labels of the image, shape (L,).
            settings: Views and rule.

        Returns:
            One map per label.
        """
        return multi_view_cam(
            image.to(self.device),
            self.view_maps(settings.autocast),
            labels.cpu(),
            self.views(settings),
            settings.rule,
            self.normalize,
            self.pad_multiple,
        )

    def weights_sha256(self) -> str:
        """Hash all parameters and buffers, the normalisation, and the method of the maps."""
        digest = hashlib.sha256(self._hashed_with_weights.encode())
        for name, value in sorted(self.model.state_dict().items()):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _context(self, autocast: str | None) -> Context:
        if autocast is None:
            return nullcontext
        return partial(torch.autocast, self.device.type, AUTOCAST[autocast])

    def _normalisation(self) -> str:
        preprocessor = self.model.data_preprocessor
        settings = [getattr(preprocessor, name, None) for name in ("mean", "std", "to_rgb")]
        settings = [x.flatten().tolist() if torch.is_tensor(x) else x for x in settings]
        return f"normalisation {settings}"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set a model to evaluation mode, and restore the mode of each module at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _folded(network: nn.Module, probe: Tensor) -> nn.Module:
    folded: Any = fold_batch_norm(network, probe)
    result: nn.Module = folded.to(memory_format=torch.channels_last)
    return result


def _require_classifier(model: nn.Module) -> None:
    if getattr(model, "data_preprocessor", None) is None or (
        getattr(model, "head", None) is None and getattr(model, "model", None) is None
    ):
        raise ValueError(
            f"model {type(model).__name__}: expected a classifier of mmpretrain, found one without "
            "a head. Give the config of a classifier"
        )


def _require_finite_head(model: nn.Module) -> None:
    part: Any = getattr(model, "head", None) or getattr(model, "model", None)
    if not all(value.isfinite().all() for value in part.parameters()):
        raise ValueError(
            f"classifier {type(model).__name__}: it holds weights that are not finite. Its "
            "training has diverged; take an earlier checkpoint"
        )
