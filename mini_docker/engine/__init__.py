"""The engine: containers and networks, and the one who knows them all."""
