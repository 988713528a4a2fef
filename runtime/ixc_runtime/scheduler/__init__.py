"""What may start, who goes on, how many rows each gets. Knows no tensors and no sockets."""
