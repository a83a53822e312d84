"""`python -m rowwise` is the command `rowwise`."""

from rowwise.cli import main

if __name__ == "__main__":
    main()
