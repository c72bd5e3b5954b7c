"""``python -m featstore.cli`` is the command ``featstore``."""

from .main import main

if __name__ == "__main__":
    main()
