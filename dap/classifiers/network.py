"""A classifier as one module from normalised images to logits, and what its modules compute."""

from __future__ import annotations

import copy
import inspect
import threading
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class LogitNetwork(nn.Module):
    """The whole of a classifier: normalised images (N, 3, H, W) → logits (N, K).

    Args:
        classifier: An ``ImageClassifier`` of mmpretrain, or one that holds a network of another
            library as ``model``, as mmpretrain's ``TimmClassifier`` does.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.parts = hasattr(classifier, "backbone")
        network: Any = classifier if self.parts else classifier.model
        self.classifier = network
        # transformers resize their table of positions to larger images only if asked to.
        forward = inspect.signature(network.forward).parameters
        interpolates = "interpolate_pos_encoding" in forward
        self.options = {"interpolate_pos_encoding": True} if interpolates else {}

    def forward(self, images: Tensor) -> Any:
        """Compute the logits of normalised images."""
        classifier: Any = self.classifier
        if self.parts:
            found = classifier.head(classifier.extract_feat(images, stage="neck"))
            # Conformer has two heads, whose logits it adds to predict a class.
            return sum(found) if isinstance(found, tuple | list) else found
        found = classifier(images, **self.options)
        found = getattr(found, "logits", found)
        return found[0] if isinstance(found, tuple | list) else found


class Call(NamedTuple):
    """One call of a module in a forward.

    Attributes:
        name: Of the module.
        module: The module.
        given: Its first argument, if that is a tensor.
        output: What it returned, if that is one tensor.
    """

    name: str
    module: nn.Module
    given: Tensor | None
    output: Tensor | None


def observe(network: nn.Module, images: Tensor) -> tuple[Any, list[Call]]:
    """Run a network; list the calls of all its modules in the order in which they returned.

    The tensors are those of the forward itself: what an operation changed in place shows.
    """
    calls: list[Call] = []
    names = {module: name for name, module in network.named_modules()}

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0] if inputs and torch.is_tensor(inputs[0]) else None
        calls.append(
            Call(names[module], module, given, output if torch.is_tensor(output) else None)
        )

    hooks = [module.register_forward_hook(after) for module in names]
    try:
        return network(images), calls
    finally:
        for hook in hooks:
            hook.remove()


def shared_copy(network: nn.Module) -> nn.Module:
    """Copy the modules of a network, in evaluation mode; the copy has the same weights, not new."""
    tensors = chain(network.parameters(), network.buffers())
    result = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    return result.eval()


class Tap:
    """Runs a network and takes the output of one of its modules. Threads may share it.

    Args:
        network: It gets a hook, and is to be used by this object alone.
        module: Name of the module.
    """

    def __init__(self, network: nn.Module, module: str) -> None:
        self.network, self.module = network, module
        self._state = state = threading.local()

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            if getattr(state, "differentiate", False):
                torch.set_grad_enabled(True)
                # A copy, as the network may change what it gets in place, which a leaf forbids.
                output = output.detach().requires_grad_().clone()
            state.output = output
            return output

        self._hook = network.get_submodule(module).register_forward_hook(after)

    def release(self) -> nn.Module:
        """Give the network back without the hook; the object is of no more use."""
        self._hook.remove()
        return self.network

    def output(self, images: Tensor) -> Tensor:
        """The output of the module for normalised images."""
        self.network(images)
        return self._taken()

    def with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the module, and the logits, for normalised images."""
        logits = self.network(images)
        return self._taken(), logits

    def with_graph(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the module, and logits that can be differentiated by it.

        Gradients are recorded from the module on only, so that what comes before takes no more
        memory than in inference. Not to be called in inference mode.
        """
        self._state.differentiate = True
        try:
            with torch.no_grad():
                logits = self.network(images.clone())
            return self._taken(), logits
        finally:
            self._state.differentiate = False

    def _taken(self) -> Tensor:
        output: Tensor = self._state.output
        del self._state.output
        return output
