"""A trained network at work: new images sorted, and the network exported."""
