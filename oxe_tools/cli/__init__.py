"""The command `oxe`: one file for each subcommand."""
