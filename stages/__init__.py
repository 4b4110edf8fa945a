"""What is done to media and vectors: decoding, models, the store. Knows no sockets and no processes."""
