"""Run the command `oxe` with `python -m oxe_tools`."""

from oxe_tools.cli.main import main

main()
