"""`--mode=predict`: new images, sorted into the clusters of a run."""

from pathlib import Path

from jaxclust.commands import Command, lazily

FLAGS = {
    "--images": {"type": Path, "help": "a folder, list of files (.txt), archive, array or image"},
    "--into": {"type": Path, "metavar": "DIR", "help": "make a folder of links for each cluster"},
    "--copy": {"action": "store_const", "const": True, "help": "copies instead of links"},
    "--embeddings": {"action": "store_const", "const": True, "help": "vectors in the Parquet file"},
    "--out": {"type": Path, "metavar": "DIR", "help": "where to write (default: the workdir)"},
}

COMMAND = Command("sort new images into a run's clusters", lazily("work.predict"), flags=FLAGS, restores=True)
