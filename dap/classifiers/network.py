"""A classifier as one module from normalised images to logits, and access to inner outputs."""

from __future__ import annotations

import copy
import inspect
import threading
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class LogitNetwork(nn.Module):
    """A classifier as a module: normalised images (N, 3, H, W) → logits (N, K).

    Args:
        classifier: An ``ImageClassifier`` of mmpretrain, or one that holds a network of another
            library as ``model``, as mmpretrain's ``TimmClassifier`` does.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.is_mmpretrain = hasattr(classifier, "backbone")
        network: Any = classifier if self.is_mmpretrain else classifier.model
        self.classifier = network
        # Models of transformers resize their position embeddings only with this option.
        forward = inspect.signature(network.forward).parameters
        interpolates = "interpolate_pos_encoding" in forward
        self.options = {"interpolate_pos_encoding": True} if interpolates else {}

    def forward(self, images: Tensor) -> Any:
        """Compute the logits of normalised images."""
        classifier: Any = self.classifier
        if self.is_mmpretrain:
            output = classifier.head(classifier.extract_feat(images, stage="neck"))
            # Conformer has two heads, whose logits it adds to predict a class.
            return sum(output) if isinstance(output, tuple | list) else output
        output = classifier(images, **self.options)
        output = getattr(output, "logits", output)
        return output[0] if isinstance(output, tuple | list) else output


class Call(NamedTuple):
    """One call of a module during a forward pass.

    Attributes:
        name: Name of the module.
        module: The module.
        input: Its first argument; None if that is no tensor.
        output: Its result; None if that is no tensor.
        last_output: Its result or, if that is a tuple such as the stages of a backbone, the last
            element; None if that is no tensor.
    """

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor | None
    last_output: Tensor | None


def last_output(output: Any) -> Any:
    """Return the last of several outputs, such as those of the stages of a backbone."""
    return output[-1] if isinstance(output, tuple | list) and output else output


def observe(network: nn.Module, images: Tensor) -> tuple[Any, list[Call]]:
    """Run a network and record the calls of all its modules.

    The tensors are not copied, so later in-place operations change them.

    Returns:
        The output of the network, and the calls in the order in which they returned.
    """
    calls: list[Call] = []
    names = {module: name for name, module in network.named_modules()}

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        values = (inputs[0] if inputs else None, output, last_output(output))
        tensors = (value if torch.is_tensor(value) else None for value in values)
        calls.append(Call(names[module], module, *tensors))

    hooks = [module.register_forward_hook(after) for module in names]
    try:
        return network(images), calls
    finally:
        for hook in hooks:
            hook.remove()


def keeps_output(network: nn.Module, module: str, images: Tensor) -> bool:
    """Whether a module is called once per forward pass, and its output not modified in place."""
    outputs: list[tuple[Tensor, int]] = []

    def after(_: nn.Module, __: Any, output: Any) -> None:
        output = last_output(output)
        outputs.append((output, output._version))

    hook = network.get_submodule(module).register_forward_hook(after)
    try:
        with torch.inference_mode(False), torch.no_grad():  # inference tensors have no version
            network(images.clone())
    finally:
        hook.remove()
    return len(outputs) == 1 and outputs[0][0]._version == outputs[0][1]


def shared_copy(network: nn.Module) -> nn.Module:
    """Copy the modules of a network; the copy shares its tensors and is in evaluation mode.

    Raises:
        ValueError: If a module cannot be copied.
    """
    tensors = chain(network.parameters(), network.buffers())
    try:
        duplicate = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"the classifier cannot be copied ({type(error).__name__}: {error}). Expected modules "
            "that copy.deepcopy accepts; remove the attribute that it cannot copy"
        ) from error
    return duplicate.eval()


class _OutputReached(Exception):
    """Raised to end a forward pass when the remaining layers are not needed."""


class Tap:
    """Runs a network and returns the output of one of its modules. Safe to use in several threads.

    Args:
        network: The network, to which a hook is added; not to be used by other objects.
        module: Name of the module.
        stop: Whether :meth:`output` skips the layers after the module, which is only correct if
            :func:`keeps_output` is True.
    """

    def __init__(self, network: nn.Module, module: str, stop: bool = False) -> None:
        self.network, self.module, self.stop = network, module, stop
        self._state = state = threading.local()

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            if getattr(state, "differentiate", False):
                torch.set_grad_enabled(True)
                # Cloned, since the network may change it in place, which a leaf tensor forbids.
                output = output.detach().requires_grad_().clone()
            state.output = output
            if getattr(state, "stop", False):
                raise _OutputReached
            return output

        self._hook = network.get_submodule(module).register_forward_hook(after)

    def release(self) -> nn.Module:
        """Remove the hook and return the network; the tap must not be used afterwards."""
        self._hook.remove()
        return self.network

    def output(self, images: Tensor) -> Tensor:
        """Compute the output of the module for normalised images; of a tuple, the last one."""
        self._state.stop = self.stop
        try:
            self.network(images)
        except _OutputReached:
            pass
        finally:
            self._state.stop = False
        output: Tensor = last_output(self._pop_output())
        return output

    def with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the output of the module, and the logits, for normalised images."""
        logits = self.network(images)
        return self._pop_output(), logits

    def with_graph(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the output of the module, and logits that are differentiable with respect to it.

        Gradients are recorded after the module only, so that earlier layers need no more memory
        than in inference. Must not be called in inference mode.
        """
        self._state.differentiate = True
        try:
            with torch.no_grad():
                logits = self.network(images.clone())
            return self._pop_output(), logits
        finally:
            self._state.differentiate = False

    def _pop_output(self) -> Tensor:
        output: Tensor = self._state.output
        del self._state.output
        return output
