"""`python -m candling`."""

from candling.cli.main import main

if __name__ == "__main__":
    main()
