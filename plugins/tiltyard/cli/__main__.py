"""`python -m tiltyard.cli`: the command line, also where its script is not on the path."""

from tiltyard.cli import main

if __name__ == "__main__":
    main()
