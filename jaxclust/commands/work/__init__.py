"""What the modes do. Importing it takes seconds, which words of the command do not."""
