"""The command `rowwise`, and `python -m rowwise`: what is set before more is imported."""

import gc
import os
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    gc.set_threshold(100_000, 20, 20)  # imports make objects by the thousand, and no garbage
    # Else pydantic looks through every installed package for plugins: 20 ms of each command.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    from rowwise import cli

    cli.main()


if __name__ == "__main__":
    main()
