"""The front end: the contract `ixc.v1` over gRPC. Knows protobuf and status codes, no arrays."""
