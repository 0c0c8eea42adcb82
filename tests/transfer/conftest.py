"""What MMEngine logs, for tests to read."""

import logging
from collections.abc import Callable, Iterator

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """Read what MMEngine's current logger got."""
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    logger = MMLogger.get_instance("test_transfer")
    logger.addHandler(Keep())
    yield lambda: "\n".join(records)
    logger.handlers.clear()
