"""Layer names: a spiking layer of the network as people read it, in pictures and tables."""


def short_layer_name(name: str) -> str:
    """`snn.stages.0.blocks.1.lif2` → `stage 1, block 2, lif2`; another name stays as it is."""
    parts = name.split(".")
    if len(parts) == 6:
        return f"stage {int(parts[2]) + 1}, block {int(parts[4]) + 1}, {parts[5]}"
    return name
