"""Several backends in place of one, changed by options alone."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import Visualizer

from dap.visualization.vis_backends import VisBackends


@VISBACKENDS.register_module(force=True)
class NotingBackend:
    """Notes what it is given, and empties the dicts, as backends may."""

    def __init__(self, save_dir):
        self.save_dir, self.noted = save_dir, []

    def __getattr__(self, name):
        def note(*args, **kwargs):
            self.noted.append((name, [dict(a) if isinstance(a, dict) else a for a in args]))
            for value in args:
                if isinstance(value, dict):
                    value.clear()

        return note


def test_each_backend_gets_all(tmp_path):
    config = Config({"visualizer": {"vis_backends": [{"type": "LocalVisBackend"}]}})
    config.merge_from_dict(
        {
            "visualizer.vis_backends.0.type": "dap.VisBackends",
            "visualizer.vis_backends.0.backends": ["NotingBackend", "LocalVisBackend"],
        }
    )
    visualizer = Visualizer(**config.visualizer, save_dir=str(tmp_path))
    visualizer.add_scalars({"loss": 0.5}, step=3)
    visualizer.add_scalar("lr", 0.1, step=3)
    visualizer.add_image("picture", np.zeros((4, 4, 3), np.uint8), step=3)
    visualizer.close()
    noting = visualizer.get_backend("VisBackends").backends[0]
    assert [name for name, _ in noting.noted] == ["add_scalars", "add_scalar", "add_image", "close"]
    assert noting.noted[0][1][0] == {"loss": 0.5}
    assert '"loss": 0.5' in (tmp_path / "vis_data" / "scalars.json").read_text()
    assert list((tmp_path / "vis_data" / "vis_image").iterdir())


@pytest.mark.parametrize("backends", [[], "LocalVisBackend"])
def test_no_list_of_backends(tmp_path, backends):
    with pytest.raises(ValueError, match="expected a list of types"):
        VisBackends(str(tmp_path), backends)
