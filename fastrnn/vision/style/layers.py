"""The layers of the networks: the names that papers give to the modules of their features."""

from collections.abc import Sequence


def _vgg(*blocks: int) -> tuple[str, ...]:
    """Simonyan and Zisserman's, of so many convolutions a block; relu4_2 rectifies conv4_2."""
    names = []
    for block, convolutions in enumerate(blocks, 1):
        for i in range(1, convolutions + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return tuple(names)


# In the order of the modules. SqueezeNet's are Iandola et al.'s, a pooling after conv1, fire3 and
# fire5 each.
NAMES = {
    "squeezenet1_1": (
        *("conv1", "relu1", "pool1", "fire2", "fire3", "pool3", "fire4", "fire5", "pool5"),
        *("fire6", "fire7", "fire8", "fire9"),
    ),
    "vgg16": _vgg(2, 2, 3, 3, 3),
    "vgg19": _vgg(2, 2, 4, 4, 4),
}


def indices(setting: str, layers: Sequence[int | str], backbone: str) -> list[int]:
    """The modules that layers are, each an index, also as text, or a name.

    Raises ValueError that names the setting and the layers that there are, and for none or the same
    one twice.
    """
    names = NAMES[backbone]
    known = {str(i): i for i in range(len(names))} | {name: i for i, name in enumerate(names)}
    if unknown := [layer for layer in layers if str(layer) not in known]:
        raise ValueError(
            f"{setting}: {backbone} has 0 to {len(names) - 1}, or {', '.join(names)}; got "
            f"{unknown[0]}"
        )
    found = [known[str(layer)] for layer in layers]
    if len({*found}) < len(found) or not found:
        raise ValueError(f"{setting}: expected one or more different layers, got {[*layers]}")
    return found
