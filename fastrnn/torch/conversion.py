"""Models whose recurrent modules fastrnn computes."""

import logging
from collections.abc import Callable

import torch
from torch.nn.utils.parametrize import is_parametrized

from fastrnn.torch import modules

_OURS = {
    ours.own: ours
    for ours in (
        *(modules.RNN, modules.LSTM, modules.GRU),
        *(modules.RNNCell, modules.LSTMCell, modules.GRUCell),
    )
}
_LOGGER = logging.getLogger(__name__)
_NAMES = {theirs.__name__ for theirs in _OURS}


def convert(
    module: torch.nn.Module,
    *,
    report: Callable[[str], object] = _LOGGER.info,
) -> torch.nn.Module:
    """Have fastrnn compute every RNN, LSTM, GRU and cell of torch.nn in a module, itself included.

    The modules change their class and nothing else, in place: parameters, hooks, names and whoever
    holds them stay. Subclasses of torch.nn's are left as they are, since they may compute something
    else; derive them from fastrnn.torch's.

    Inputs: module; report, called with a line for each recurrent module that is found, which says
    what became of it, or that there is none, such as print.
    Returns: module.
    Raises TypeError unless it is a torch.nn.Module.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
    found = {path: _convert_one(inner) for path, inner in module.named_modules()}
    if not any(found.values()):
        report(f"module: no recurrent module in this {type(module).__name__}")
    for path, line in found.items():
        if line is not None:
            report(f"{path or 'module'}: {line}")
    return module


def _convert_one(module):
    """What became of a module; None of one that is not recurrent."""
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        name = module.original_name
        return f"left as it is: a compiled {name}; convert before" if name in _NAMES else None
    if isinstance(module, tuple(_OURS.values())):
        return "fastrnn.torch's already"
    if is_parametrized(module) and kind.__bases__[0] in _OURS:
        # Properties in a class of this module's own stand for its parameters.
        ours = _OURS[kind.__bases__[0]]
        own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(kind.__name__, (ours,), own)
    elif kind in _OURS:
        ours = _OURS[kind]
        module.__class__ = ours
    elif isinstance(module, torch.nn.RNNBase | torch.nn.RNNCellBase):
        return f"left as it is: {kind.__module__}.{kind.__qualname__} is a subclass of torch.nn's"
    elif kind.__name__ in _NAMES:
        return f"left as it is: {kind.__module__}.{kind.__qualname__} is not torch.nn's"
    else:
        return None
    return f"fastrnn.torch.{ours.__name__} in place of torch.nn.{ours.__name__}"
