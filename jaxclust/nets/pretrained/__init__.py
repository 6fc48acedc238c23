"""Other people's weights: their files, and how their names map to ours."""
