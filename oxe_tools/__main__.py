"""`python -m oxe_tools` is `oxe`."""

from oxe_tools.cli import main

main()
