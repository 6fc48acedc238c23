"""The rooms of the package, from the lowest: each may import those before it, and none after it."""

ROOMS = {
    "version": "the version",
    "types": "State, Batch, Method, Task, Refit, Pass: read this first",
    "ops": "formulas over arrays: losses, assignment, metrics",
    "run": "a run outside of its mathematics: config, workdir, files, checkpoints, processes, messages",
    "data": "sources, the cache of decoded images, batches on devices; prepare/: the papers' data sets",
    "views": "augmentations, on the device",
    "nets": "backbones and heads; pretrained/: other people's weights",
    "methods": "one paper a file",
    "clusters": "what needs only embeddings and predictions: scores, numbers of clusters, novelty, decisions",
    "training": "from a config to a checked run, and from its first step to its last",
    "inference": "new images sorted; export/: the network for elsewhere",
    "pages": "report/, compare/, browse/, and what they share",
    "commands": "one file a mode, which is its words; work/: what it does",
    "estimator": "DeepCluster, for scikit-learn",
    "main": "the command: flags and wiring only",
}


def drawing(imports: dict[str, set[str]]) -> str:
    """The rooms from the highest to the lowest, as Markdown, with the rooms that each imports."""
    lines = ["| room | what is in it | imports |", "| --- | --- | --- |"]
    for name, what in reversed(ROOMS.items()):
        below = [room for room in reversed(ROOMS) if room in imports.get(name, ())]
        lines.append(f"| `{name}` | {what} | {', '.join(below) or 'nothing'} |")
    return "\n".join(lines)
