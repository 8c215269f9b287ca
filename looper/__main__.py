"""`python -m looper`: the command line."""

from looper.cli.main import main

if __name__ == "__main__":
    main()
