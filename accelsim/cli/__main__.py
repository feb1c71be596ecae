"""``python -m accelsim.cli``."""

from accelsim.cli import main

if __name__ == "__main__":
    main()
