"""Make MMEngine's configs and data sets faster in the process that imports this module.

They take half of the time of a tiny training, for four reasons:

- yapf formats the text of a config, which takes .5 to 1 s each time. Here the text is left as it
  is. Programs that tests start as users do, and the fixture ``formatted_configs``, format it.
- For each base config of a package, such as ``mmdet::…``, MMEngine reads about a hundred metafiles
  of that package, which takes .4 s. Here each file is read once.
- A config that is the base of many is read for each of them. Here those of packages and of
  ``configs/`` are read once.
- Each data set calls ``gc.collect()``, which visits all objects of torch and mmdet.
"""

import copy
import functools
import types
from pathlib import Path
from typing import Any

import mmengine.config.config
import mmengine.config.utils
import mmengine.dataset.base_dataset
from mmengine.config import Config

FORMAT_CODE = mmengine.config.config.FormatCode
CONFIGS = str(Path(__file__).resolve().parents[2] / "configs") + "/"
READ = Config._file2dict


def _keep_layout(text: str, **style: object) -> tuple[str, bool]:
    return text, False


@functools.cache
def _read_shipped(filename: str, *arguments: Any) -> tuple[Any, ...]:
    return READ(filename, *arguments)


def _read_once(
    filename: str,
    use_predefined_variables: bool = True,
    use_environment_variables: bool = True,
    lazy_import: bool | None = None,
) -> tuple[Any, ...]:
    """Read a config; what tests do not change is read once, and copied."""
    flags = (use_predefined_variables, use_environment_variables, lazy_import)
    if "/.mim/configs/" in filename or filename.startswith(CONFIGS):
        return copy.deepcopy(_read_shipped(filename, *flags))
    return READ(filename, *flags)


mmengine.config.config.FormatCode = _keep_layout
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)
mmengine.dataset.base_dataset.gc = types.SimpleNamespace(collect=lambda: 0)
Config._file2dict = staticmethod(_read_once)
