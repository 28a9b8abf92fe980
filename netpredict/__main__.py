"""``python -m netpredict`` is ``netpredict``."""

from netpredict.cli.app import main

main()
