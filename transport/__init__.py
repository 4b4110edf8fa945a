"""Wire messages, their codec, sockets and byte credits. Imports nothing else of Sluice."""
