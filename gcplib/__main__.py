"""``python -m gcplib`` is the command ``gcplib``."""

import sys


def main() -> int:
    """Run the command line, or say which packages it lacks."""
    try:
        from gcplib.lab.cli import main

        return main()
    except ModuleNotFoundError as error:
        print(f"gcplib: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
