"""The contract. Messages and stubs are in `ixc.v1`."""
