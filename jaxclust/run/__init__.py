"""A run outside of its mathematics: config, folder, checkpoints, and the processes and devices it runs on."""
