"""What transports over a broker have in common; see the README of the room."""
