"""The command line: one file a command, each a few lines between arguments and the house's functions."""
