"""`python -m respike`: the same program as the `respike` command."""

from respike.cli.main import main

if __name__ == "__main__":
    main()
