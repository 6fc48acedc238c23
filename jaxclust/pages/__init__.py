"""Pages and pictures about runs, and the drawing, markup, tables and thumbnails that they share."""
