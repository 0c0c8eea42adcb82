from tests.support.scope import mmpretrain_scope  # noqa: F401
