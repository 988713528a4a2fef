"""Version 1 of the contract; written by protos/generate.py."""
