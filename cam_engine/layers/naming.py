"""Dotted names of layers, and which entry of what a layer returns a name means."""

from __future__ import annotations

from torch import nn

# Of torch.compile, FSDP1 and checkpoint_wrapper.
_WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def module_names(model: nn.Module) -> dict[nn.Module, str]:
    """Dotted name of every module; "" for the model itself; what wrappers of torch's put in between is left out.

    >>> from cam_engine.layers import module_names
    >>> list(module_names(nn.ModuleDict({"net": nn.ReLU()})).values())
    ['', 'net']
    """
    # A compiled wrapper and what it wraps share a shown name; hooks belong on what it wraps, which comes later.
    innermost = {_shown(name): module for name, module in model.named_modules()}
    return {module: name for name, module in innermost.items()}


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by each of its names, without the model itself."""
    return {_shown(name): module for name, module in model.named_modules(remove_duplicate=False) if _shown(name)}


def entry_of(model: nn.Module, name: str) -> str:
    """Which entry of what a layer returns a resolved name means: ``"[pool]"`` of ``"fpn[pool]"``; "" of a bare name."""
    return split_entry(name, named_modules(model))[1] if "[" in name else ""


def split_entry(name: str, modules: dict[str, nn.Module]) -> tuple[str, str]:
    """``"fpn[pool]"`` → ``("fpn", "[pool]")``, where there is a layer of that name; else it has no entry."""
    base, bracket, entry = name.partition("[")
    return (base, bracket + entry) if bracket and name not in modules and base in modules else (name, "")


def unwrapped(module: nn.Module) -> nn.Module:
    """The innermost module in wrappers of torch's."""
    inside = next((module._modules[name] for name in _WRAPPED if name in module._modules), None)
    return module if inside is None else unwrapped(inside)


def _shown(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPED)
