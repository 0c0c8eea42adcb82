"""Importing this module saves what MMEngine's configs cost most: half of a tiny training.

- The text of a config is not laid out by yapf, which takes .5 to 1 s for each text. Nothing here
  reads the layout; processes that tests start as a user does, and ``formatted_configs``, have it.
- A package's metafiles are read once in a process. MMEngine reads all hundred of them, .4 s, for
  each base config of a package, such as ``mmdet::…``.
"""

import functools

import mmengine.config.config
import mmengine.config.utils

FORMAT_CODE = mmengine.config.config.FormatCode


def _keep_layout(text: str, **style: object) -> tuple[str, bool]:
    return text, False


mmengine.config.config.FormatCode = _keep_layout
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)
