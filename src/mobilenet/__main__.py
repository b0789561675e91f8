"""`python -m mobilenet` is the command `mobilenet`."""

from mobilenet.cli import main

if __name__ == "__main__":
    main()
