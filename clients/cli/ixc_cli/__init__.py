"""The command line `ixc`. `main` is its entry; each command is a module of its own."""
