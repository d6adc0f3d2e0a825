"""`python -m oxe_tools` is `oxe`."""

from oxe_tools.cli.main import main

main()
