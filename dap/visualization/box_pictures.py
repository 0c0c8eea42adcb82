"""Pictures of some maps and boxes during a run of Step 2."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.visualization import Visualizer
from mmpretrain.registry import VISUALIZERS

from dap.images.image_files import read_image
from dap.images.labelled_images import Entry
from dap.pseudo_boxes import CamClassifier, PseudoBoxSettings, settings_from_config
from dap.store.masks import decode_mask

from .gallery import colour_of, draw_tile

SIDE = 448  # of a picture, in pixels


class BoxPictures:
    """Sends images with their map and boxes to MMEngine's visualizer, evenly spread over a run.

    A config enables it by ``pseudo_box_pictures = 16``. Its ``visualizer`` decides where the
    pictures are written, such as to TensorBoard.

    Args:
        visualizer: Receives the pictures under the name ``pseudo_boxes``. Their step is the number
            of images processed so far.
        settings: Settings of the run.
        count: Number of pictures.
    """

    def __init__(self, visualizer: Visualizer, settings: PseudoBoxSettings, count: int) -> None:
        self.visualizer, self.settings, self.count = visualizer, settings, count
        self.every, self.done, self.already_done = 1, 0, 0
        self.loader: LoadImageFromFile | None = None

    @classmethod
    def from_config(cls, config: Config, folder: str) -> BoxPictures | None:
        """Create it with a new visualizer from a config; None if the config asks for no picture.

        Args:
            config: An mmpretrain config.
            folder: Folder for the files that visualizer backends write.
        """
        count = picture_count(config)
        if not count:
            return None
        visualizer_cfg = config.get("visualizer") or {"type": "Visualizer"}
        backends = visualizer_cfg.get("vis_backends") or [{"type": "LocalVisBackend"}]
        fields = {"vis_backends": backends, "save_dir": folder, "name": "pseudo_boxes"}
        visualizer = VISUALIZERS.build({**visualizer_cfg, **fields})
        return cls(visualizer, settings_from_config(config), count)

    def start(self, images: int, already_done: int, loader: LoadImageFromFile) -> None:
        """Spread the pictures over the images; see :class:`dap.pseudo_boxes.engine.Watcher`."""
        self.every, self.loader = max(1, images // self.count), loader
        self.done, self.already_done = 0, already_done

    def image_done(
        self, entry: Entry, record: Mapping[str, Any], classifier: CamClassifier
    ) -> None:
        """Draw every n-th image. If drawing fails, a warning is logged."""
        self.done += 1
        if (self.done - 1) % self.every or (self.done - 1) // self.every >= self.count:
            return
        try:
            picture = self._draw(entry, record, classifier)
            self.visualizer.add_image("pseudo_boxes", picture, step=self.already_done + self.done)
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            print_log(f"cannot draw {entry.path}: {error}", "current", logging.WARNING)

    def _draw(
        self, entry: Entry, record: Mapping[str, Any], classifier: CamClassifier
    ) -> np.ndarray:
        """Draw map, boxes and masks over the image; RGB, uint8."""
        image = read_image(entry.path, self.loader)
        heat = None
        if len(entry.labels) and "height" in record:
            labels = torch.as_tensor(entry.labels[:1])
            cam = classifier.maps(image, labels, self.settings)
            heat = cam.over_image((image.shape[1], image.shape[2]))
        rows = np.array(record.get("boxes", ()), np.float64).reshape(-1, 6)
        colours = [colour_of(int(row[5]), self.settings.thresholds) for row in rows]
        picture = image.numpy().transpose(1, 2, 0).copy()
        size_hw = picture.shape[:2]
        masks = [decode_mask(mask, size_hw) for mask in record.get("masks", ())]
        tile = draw_tile(picture, rows[:, :4], colours, heat, side=SIDE, masks=masks)
        return tile[..., ::-1].copy()


def picture_count(config: Config) -> int:
    """Number of pictures that a config asks for: ``pseudo_box_pictures``, 0 by default.

    Raises:
        ValueError: If it is not an integer of 0 or more.
    """
    count = config.get("pseudo_box_pictures", 0)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f"pseudo_box_pictures: expected a number of images, found {count!r}")
    return count
