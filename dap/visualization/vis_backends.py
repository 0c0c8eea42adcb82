"""Several visualizer backends in place of one, for those who change a config by options alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.visualization.vis_backend import BaseVisBackend

from dap.registry import VISBACKENDS


@VISBACKENDS.register_module()
class VisBackends(BaseVisBackend):
    """Hand all to several backends.

    Options of the command line can change the type of a config's backend, but add none to it::

        --cfg-options visualizer.vis_backends.0.type=dap.VisBackends
            visualizer.vis_backends.0.backends=[LocalVisBackend,TensorboardVisBackend]

    Args:
        save_dir: Folder of all of them.
        backends: Their types.

    Raises:
        ValueError: If there is none.
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
        """That of the first backend."""
        return self.backends[0].experiment

    def _init_env(self) -> None:
        """Each backend does it by itself."""

    def add_config(self, *args: Any, **kwargs: Any) -> None:
        """See MMEngine's ``BaseVisBackend``, as all others."""
        for backend in self.backends:
            backend.add_config(*args, **kwargs)

    def add_graph(self, *args: Any, **kwargs: Any) -> None:
        """See there."""
        for backend in self.backends:
            backend.add_graph(*args, **kwargs)

    def add_image(self, *args: Any, **kwargs: Any) -> None:
        """See there."""
        for backend in self.backends:
            backend.add_image(*args, **kwargs)

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        """See there."""
        for backend in self.backends:
            backend.add_scalar(*args, **kwargs)

    def add_scalars(self, scalar_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """See there; backends change the dict, so that each gets its own."""
        for backend in self.backends:
            backend.add_scalars(dict(scalar_dict), *args, **kwargs)

    def close(self) -> None:
        """See there."""
        for backend in self.backends:
            backend.close()
