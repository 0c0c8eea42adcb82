"""A visualizer backend that forwards to several backends, for use with command-line options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.visualization.vis_backend import BaseVisBackend

from dap.registry import VISBACKENDS


@VISBACKENDS.register_module()
class VisBackends(BaseVisBackend):
    """Forwards everything to several backends.

    Command-line options can replace a config's backend, but cannot add one to the list::

        --cfg-options visualizer.vis_backends.0.type=dap.VisBackends
            visualizer.vis_backends.0.backends=[LocalVisBackend,TensorboardVisBackend]

    Args:
        save_dir: Folder of all backends.
        backends: Types of the backends.

    Raises:
        ValueError: If ``backends`` is empty or not a list.
    """

    def __init__(self, save_dir: str, backends: Sequence[str]) -> None:
        super().__init__(save_dir)
        if isinstance(backends, str) or not backends:
            raise ValueError(f"VisBackends: expected a list of types, found {backends!r}")
        self.backends = [
            VISBACKENDS.build({"type": kind, "save_dir": save_dir}) for kind in backends
        ]

    @property
    def experiment(self) -> Any:
        """Experiment of the first backend."""
        return self.backends[0].experiment

    def _init_env(self) -> None:
        """Do nothing: each backend initialises itself."""

    def add_config(self, *args: Any, **kwargs: Any) -> None:
        """Call ``add_config`` of each backend."""
        for backend in self.backends:
            backend.add_config(*args, **kwargs)

    def add_graph(self, *args: Any, **kwargs: Any) -> None:
        """Call ``add_graph`` of each backend."""
        for backend in self.backends:
            backend.add_graph(*args, **kwargs)

    def add_image(self, *args: Any, **kwargs: Any) -> None:
        """Call ``add_image`` of each backend."""
        for backend in self.backends:
            backend.add_image(*args, **kwargs)

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        """Call ``add_scalar`` of each backend."""
        for backend in self.backends:
            backend.add_scalar(*args, **kwargs)

    def add_scalars(self, scalar_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Call ``add_scalars`` of each backend with a copy of the dict: backends change it."""
        for backend in self.backends:
            backend.add_scalars(dict(scalar_dict), *args, **kwargs)

    def close(self) -> None:
        """Close each backend."""
        for backend in self.backends:
            backend.close()
