"""Check this installation: what is installed, what fails, and how to fix it.

Exits with 0 if all that DAP needs works; no GPU and no mim are noted, but they are no failure.
"""

import argparse
import importlib.util
import sys


def main() -> int:
    """Print the report."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    spec = importlib.util.find_spec("dap")
    if spec is None:
        print(f"{sys.executable} has no dap: run `uv sync` or `pip install -e .` in the checkout")
        return 1
    # The package without its __init__, which refuses just the installations that come here.
    sys.modules["dap"] = importlib.util.module_from_spec(spec)
    from dap import doctor

    results = doctor.examine()
    print(doctor.report(results))
    return 0 if doctor.healthy(results) else 1


if __name__ == "__main__":
    sys.exit(main())
