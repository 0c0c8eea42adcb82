"""Check this installation: what is installed, what fails, and how to fix it.

The exit status is 0 if all required checks pass. A missing GPU or mim is noted, but is no failure.
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
    # The package without its __init__, which fails in the installations that need this tool.
    sys.modules["dap"] = importlib.util.module_from_spec(spec)
    from dap import doctor

    results = doctor.examine()
    print(doctor.report(results))
    return 0 if doctor.healthy(results) else 1


if __name__ == "__main__":
    sys.exit(main())
