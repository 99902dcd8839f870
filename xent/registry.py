"""The plugins: found, loaded one by one, each in isolation, listed and blocked.

A broken plugin is set aside with one warning that names it and how to disable it; xent works on. xent's own kernels
and backends come through the same hooks. Leaves out choosing among kernels (``selection.py``).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import threading
import traceback
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pluggy

from . import checks, hookspecs, settings
from .errors import PluginWarning
from .kernels import BackendSpec, KernelSpec

OWN = ("generic", "numpy", "dask", "torch", "jax")
GROUP = "xent"


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """What is known of one plugin.

    Attributes
    ----------
    name, distribution, version : str
        Of the entry point; "xent" itself for xent's own.
    status : "active", "blocked" or "broken"
    kernels, hooks : tuple of str
    error : str
        The traceback of a broken one.
    """

    name: str
    distribution: str
    version: str
    status: str
    kernels: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    error: str = ""

    @property
    def origin(self) -> str:
        """The distribution and its version, for a message."""
        return f"{self.distribution} {self.version}".strip() or "no distribution"

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class Registry:
    """The kernels and backends that plugins have registered, and the plugins that failed to."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.loaded = False
        self.manager = pluggy.PluginManager("xent")
        self.manager.add_hookspecs(hookspecs)
        self.kernels: list[KernelSpec] = []
        self.backends: list[BackendSpec] = []
        self.records: dict[str, PluginRecord] = {}
        self.current = ("xent", "xent", "")  # name, distribution, version of the plugin that is being registered
        hook = self.manager.hook
        hook.xent_register_kernels.call_historic(self.collect_kernels, {"api": hookspecs.API_VERSION})
        hook.xent_register_backends.call_historic(self.collect_backends, {"api": hookspecs.API_VERSION})

    def collect_kernels(self, result: Any) -> None:
        """Takes over the kernels of the plugin being registered; all of them, or none."""
        specs = [self.accept(spec, KernelSpec) for spec in result]
        taken = {(spec.op, spec.name): spec.owner for spec in self.kernels}
        for spec in specs:
            if (spec.op, spec.name) in taken:
                raise ValueError(
                    f"kernel {spec.name!r} for {spec.op} is there already, from {taken[spec.op, spec.name]}"
                )
            taken[spec.op, spec.name] = spec.owner
        self.kernels += specs

    def collect_backends(self, result: Any) -> None:
        """Takes over the backends of the plugin being registered; all of them, or none."""
        self.backends += [self.accept(spec, BackendSpec) for spec in result]

    def accept(self, spec: Any, kind: type[Any]) -> Any:
        """The spec with its owner filled in, if it is one and of a version that is served."""
        if not isinstance(spec, kind):
            raise TypeError(f"expected a {kind.__name__}, got {type(spec).__name__}")
        if kind is KernelSpec and spec.op not in ("sparse", "dense"):
            raise ValueError(f"kernel {spec.name!r} has op {spec.op!r}, which is neither sparse nor dense")
        if spec.api not in (hookspecs.API_VERSION, hookspecs.API_VERSION - 1) or spec.api < 1:
            raise ValueError(f"{spec.name!r} targets api {spec.api}, this xent serves api {hookspecs.API_VERSION}")
        return replace(spec, owner=self.current[0])

    def load(self) -> None:
        """Registers xent's own plugins and every entry point that is not blocked; once."""
        if self.loaded:
            return
        with self.lock:
            if self.loaded:  # another thread may have done it meanwhile
                return  # type: ignore[unreachable]  # mypy does not know of other threads
            version = own_version()
            for name in (name for name in OWN if f"xent.{name}" not in self.records):
                self.add(importlib.import_module(f"xent.backends.{name}"), f"xent.{name}", "xent", version)
            wanted, disabled = os.environ.get("XENT_PLUGINS", "auto").strip(), settings.current().settings.disable
            for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
                blocked = wanted == "none" or (wanted not in ("auto", "") and entry.name not in settings.names(wanted))
                self.load_entry_point(entry, blocked or entry.name in disabled or "*" in disabled)
            self.loaded = True

    def load_entry_point(self, entry: importlib.metadata.EntryPoint, blocked: bool) -> None:
        """Imports and registers one plugin, unless it is blocked."""
        distribution = entry.dist.name if entry.dist else "unknown"
        version = entry.dist.version if entry.dist else ""
        if blocked:
            self.records[entry.name] = PluginRecord(entry.name, distribution, version, "blocked")
            return
        try:
            plugin = entry.load()
        except (Exception, SystemExit) as error:  # whatever a plugin's import raises, xent works on
            self.set_aside(entry.name, distribution, version, error)
        else:
            self.add(plugin, entry.name, distribution, version)

    def add(self, plugin: Any, name: str, distribution: str = "", version: str = "") -> None:
        """Registers one plugin; whatever it had registered is taken back if any of its hooks fails."""
        with self.lock:
            before = list(self.kernels), list(self.backends)
            self.current = (name, distribution, version)
            try:
                self.manager.register(plugin, name)
                self.manager.check_pending()
            except (Exception, SystemExit) as error:  # a hook may raise anything
                if self.manager.get_plugin(name) is plugin:
                    self.manager.unregister(name=name)
                self.kernels, self.backends = before
                self.set_aside(name, distribution, version, error)
            else:
                hooks = tuple(sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or ()))
                kernels = tuple(f"{spec.name} ({spec.op})" for spec in self.kernels if spec.owner == name)
                self.records[name] = PluginRecord(name, distribution, version, "active", kernels, hooks)
            settings.forget_plans()

    def ask_site(self, problem: Any, candidates: tuple[str, ...]) -> tuple[str, ...]:
        """The order that a site's policy gives the candidates, empty without one; a policy that breaks is set aside."""
        hook = self.manager.hook.xent_order_kernels
        everyone = [one.plugin for one in hook.get_hookimpls()]
        for one in reversed(hook.get_hookimpls()):
            others = [plugin for plugin in everyone if plugin is not one.plugin]
            alone = self.manager.subset_hook_caller("xent_order_kernels", others)
            try:
                order = alone(problem=problem, candidates=candidates)
                if order is not None:
                    return tuple(order)
            except Exception as error:  # a site's policy may raise anything
                self.quarantine(one.plugin_name, error)
        return ()

    def remove(self, name: str) -> None:
        """Takes a plugin out again."""
        with self.lock:
            self.manager.unregister(name=name)
            self.kernels = [spec for spec in self.kernels if spec.owner != name]
            self.backends = [spec for spec in self.backends if spec.owner != name]
            self.records.pop(name, None)
            settings.forget_plans()

    def set_aside(self, name: str, distribution: str, version: str, error: BaseException) -> None:
        """Lists a plugin as broken, with its traceback, and warns once; raises under XENT_PLUGIN_ERRORS=raise."""
        self.kernels = [spec for spec in self.kernels if spec.owner != name]
        text = "".join(traceback.format_exception(error))
        record = self.records[name] = PluginRecord(name, distribution, version, "broken", error=text)
        settings.forget_plans()
        if os.environ.get("XENT_PLUGIN_ERRORS", "warn") == "raise":
            raise error
        warnings.warn(
            f"xent: plugin {name!r} ({record.origin}) is set aside: "
            f"{type(error).__name__}: {error}. `xent plugins` shows its traceback; XENT_DISABLE={name} silences this.",
            PluginWarning,
            stacklevel=2,
        )

    def quarantine(self, owner: str, error: Exception) -> None:
        """Sets aside a plugin whose ``check`` or ``guard`` broke."""
        with self.lock:
            record = self.records.get(owner)
            if record is not None and record.status == "active":
                if self.manager.has_plugin(owner):
                    self.manager.unregister(name=owner)
                self.set_aside(owner, record.distribution, record.version, error)


def own_version() -> str:
    """xent's version; empty where it runs from a source tree that was never installed."""
    try:
        return importlib.metadata.version("xent")
    except importlib.metadata.PackageNotFoundError:
        return ""


registry = Registry()


def register(plugin: Any, name: str) -> None:
    """Registers a plugin of this process: a module or an object with hooks of ``xent.hookimpl``.

    Parameters
    ----------
    plugin : object
        Its methods or functions marked with ``xent.hookimpl`` are the hooks.
    name : str
        What it is called in listings, and by ``using(disable=)``. A plugin of that name that :func:`register` put in
        before is taken out first.

    Raises
    ------
    ValueError
        If the name is no string or one of xent's own, or the plugin has no hooks.

    Warns
    -----
    PluginWarning
        If one of its hooks fails: then nothing of it is registered.

    Examples
    --------
    >>> import xent
    >>> class Policy:
    ...     @xent.hookimpl
    ...     def xent_order_kernels(self, candidates):
    ...         return sorted(candidates)
    >>> xent.register(Policy(), "by-name")
    >>> [one.status for one in xent.plugins() if one.name == "by-name"]
    ['active']
    >>> xent.unregister("by-name")
    """
    registry.load()
    checks.plugin(name, registry.manager.parse_hookimpl_opts, plugin)
    if registry.manager.has_plugin(name):
        registry.remove(name)
    registry.add(plugin, name)


def unregister(name: str) -> None:
    """Takes out a plugin that :func:`register` put in.

    Parameters
    ----------
    name : str

    Raises
    ------
    ValueError
        If there is no active plugin of that name, or it is xent's own.

    Examples
    --------
    See :func:`register`.
    """
    if not registry.manager.has_plugin(name) or name.startswith("xent."):
        raise ValueError(f"unregister: `name` must be that of an active plugin, got {name!r}. See xent.plugins().")
    registry.remove(name)


def plugins() -> list[PluginRecord]:
    """Every plugin: its name, distribution, version, kernels, hooks, status, and the traceback if it is broken.

    Returns
    -------
    list of PluginRecord
        xent's own first.

    Examples
    --------
    >>> import xent
    >>> xent.plugins()[0].name
    'xent.generic'
    """
    registry.load()
    return list(registry.records.values())
