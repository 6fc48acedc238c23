"""`--mode=suggest-k`: how many clusters the embeddings of a checkpoint speak for."""

from jaxclust.commands import Command, lazily

COMMAND = Command(
    "which number of clusters a checkpoint's embeddings speak for",
    lazily("work.suggest_k"),
    flags={"--k": {"metavar": "LOW:HIGH", "help": "the numbers of clusters to try (default: 2:30)"}},
    restores=True,
)
