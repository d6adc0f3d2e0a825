"""The command `oxe`: one file per subcommand."""
