"""What a run came to: figures, findings and one page to read them on."""
