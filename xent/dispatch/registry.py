"""The plugins: found, loaded one by one, each in isolation, listed and blocked.

A broken plugin is set aside with one warning that names it and how to disable it; xent works on. xent's own kernels
and backends come through the same hooks. Leaves out choosing among kernels (``selection.py``).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pluggy

from .. import checks, distribution
from ..contract import hooks, specs
from ..contract.plan import warn_once
from ..contract.specs import BackendSpec, KernelSpec
from ..errors import LabelError, PluginWarning, is_interrupt, summary
from . import declarations, settings

OWN = ("generic", "numpy", "cupy", "dask", "torch", "jax")
GROUP = "xent"
PATIENCE_SECONDS = 5.0
"""How long a call waits for another thread that loads plugins, or makes a plan; that thread may wait for the call."""


@contextlib.contextmanager
def patient(lock: threading.RLock, seconds: float) -> Iterator[bool]:
    """A context in which the lock is held, unless it was not to be had in so many seconds: then the value is False."""
    is_held = lock.acquire(timeout=seconds)
    try:
        yield is_held
    finally:
        if is_held:
            lock.release()


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

    @property
    def title(self) -> str:
        """The plugin and its origin, for a message."""
        return f"plugin {self.name!r} ({self.origin})"

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class Registry:
    """The kernels and backends that plugins have registered, and the plugins that failed to."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.loaded = self.loading = False
        self.is_waited_for = False  # a call has run out of patience, so the next one has none
        self.asking = threading.local()
        self.manager = pluggy.PluginManager("xent")
        self.manager.add_hookspecs(hooks)
        self.kernels: list[KernelSpec] = []
        self.backends: list[BackendSpec] = []
        self.records: dict[str, PluginRecord] = {}
        self.current = ("xent", "xent", "")  # name, distribution, version of the plugin that is being registered
        hook = self.manager.hook
        hook.xent_register_kernels.call_historic(self.collect_kernels, {"api": specs.API_VERSION})
        hook.xent_register_backends.call_historic(self.collect_backends, {"api": specs.API_VERSION})

    def collect_kernels(self, result: Any) -> None:
        """Adds the kernels of the plugin being registered; all of them, or none."""
        self.kernels += self.accepted(result, KernelSpec, self.kernels)

    def collect_backends(self, result: Any) -> None:
        """Adds the backends of the plugin being registered; all of them, or none."""
        self.backends += self.accepted(result, BackendSpec, self.backends)

    def accepted(self, result: Any, kind: type[Any], registered: list[Any]) -> list[Any]:
        """The declarations of a plugin with their owner filled in; raises if one is not valid, or its name is taken."""
        specs = [replace(declarations.checked(spec, kind), owner=self.current[0]) for spec in result]
        taken = {(getattr(spec, "op", ""), spec.name): spec.owner for spec in registered}
        for spec in specs:
            key = getattr(spec, "op", ""), spec.name
            if key in taken:
                raise ValueError(f"{declarations.title(spec)} is there already, from {taken[key]}")
            taken[key] = spec.owner
        return specs

    def load(self) -> None:
        """Registers every plugin, once.

        A plugin that calls xent while it is imported is served by those before it, and so is a thread that it starts
        and waits for: no call waits for ever.
        """
        if self.loaded:
            return
        with patient(self.lock, 0.0 if self.is_waited_for else PATIENCE_SECONDS) as is_held:
            if not is_held or self.loaded or self.loading:  # meanwhile, by another thread or this one
                if self.loading and not is_held and not self.is_waited_for:
                    self.is_waited_for = True
                    name, distribution, version = self.current
                    title = PluginRecord(name, distribution, version, "active").title
                    warn_once(
                        f"{title} has not been loaded in {PATIENCE_SECONDS:g} s; calls of other threads are served "
                        f"without it in the meantime. XENT_DISABLE={name} leaves it out."
                    )
                return
            self.loading = True
            try:
                self.load_all()
                self.loaded = True
            finally:
                self.loading = self.is_waited_for = False

    def load_all(self) -> None:
        """Registers xent's own plugins and every entry point that is not blocked."""
        version = own_version()
        for name in (name for name in OWN if f"xent.{name}" not in self.records):
            self.add(importlib.import_module(f"xent.backends.{name}"), f"xent.{name}", "xent", version)
        enabled, disabled = os.environ.get("XENT_PLUGINS", "auto").strip(), settings.current().settings.disable
        for name, entry in by_name(importlib.metadata.entry_points(group=GROUP)).items():
            names = {name, entry.name}
            blocked = enabled == "none" or (enabled not in ("auto", "") and names.isdisjoint(settings.names(enabled)))
            self.load_entry_point(name, entry, blocked or not disabled.isdisjoint({*names, "*"}))

    def load_entry_point(self, name: str, entry: importlib.metadata.EntryPoint, blocked: bool) -> None:
        """Imports and registers one plugin, unless it is blocked or is known from an attempt that then failed."""
        distribution, version = origin_of(entry)
        if blocked:
            self.records[name] = PluginRecord(name, distribution, version, "blocked")
            return
        if name in self.records and not (self.records[name].status == "broken" and errors_are_raised()):
            return
        self.current = (name, distribution, version)
        try:
            plugin = entry.load()
        except BaseException as error:  # whatever a plugin's import raises, xent works on
            if is_interrupt(error):
                raise
            self.set_aside(name, distribution, version, error)
        else:
            self.add(plugin, name, distribution, version)
        if name != entry.name and self.records[name].status == "active":
            warn_once(
                f"{self.records[name].title} goes by that name because {entry.name!r} is taken. "
                f"XENT_DISABLE={name} leaves it out."
            )

    def add(self, plugin: Any, name: str, distribution: str = "", version: str = "") -> None:
        """Registers one plugin; all of it is unregistered again if any of its hooks fails."""
        with self.lock:
            before = list(self.kernels), list(self.backends)
            self.current = (name, distribution, version)
            try:
                self.manager.register(plugin, name)
                self.manager.check_pending()
                hooks = tuple(sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or ()))
                if not hooks:
                    raise ValueError("it has no hooks; mark them with xent.hookimpl")
            except BaseException as error:  # a hook may raise anything
                if self.manager.get_plugin(name) is plugin:
                    self.manager.unregister(name=name)
                self.kernels, self.backends = before
                if is_interrupt(error):
                    raise
                self.set_aside(name, distribution, version, error)
            else:
                kernels = tuple(f"{spec.name} ({spec.op})" for spec in self.kernels if spec.owner == name)
                self.records[name] = PluginRecord(name, distribution, version, "active", kernels, hooks)
            settings.forget_plans()

    def ask_site(self, problem: Any, candidates: tuple[str, ...]) -> tuple[str, ...]:
        """The order that a site's policy gives the candidates, empty without one; a policy that breaks is set aside."""
        hook = self.manager.hook.xent_order_kernels
        plugins = [implementation.plugin for implementation in hook.get_hookimpls()]
        for implementation in reversed(hook.get_hookimpls()):
            others = [plugin for plugin in plugins if plugin is not implementation.plugin]
            alone = self.manager.subset_hook_caller("xent_order_kernels", others)
            with self.asked(implementation.plugin_name, "xent_order_kernels"):
                order = alone(problem=problem, candidates=candidates)
                if order is not None:
                    return tuple(order)
        return ()

    @contextlib.contextmanager
    def asked(self, owner: str, what: str) -> Iterator[list[BaseException]]:
        """A context in which a plugin's code is asked something; a plugin whose code raises is set aside.

        The value is the list that its error is added to. A call of xent that asks the same code again, which would
        never end, is such an error.
        """
        active = self.asking.__dict__.setdefault("active", set())
        if (owner, what) in active:
            raise RecursionError(f"{what} calls xent, which asks it again; call xent.using(kernel=...) or not at all")
        active.add((owner, what))
        errors: list[BaseException] = []
        try:
            yield errors
        except BaseException as error:  # a plugin's code may raise anything
            if is_interrupt(error):
                raise
            errors.append(error)
            self.quarantine(owner, error)
        finally:
            active.discard((owner, what))

    def remove(self, name: str) -> None:
        """Unregisters a plugin."""
        with self.lock:
            self.manager.unregister(name=name)
            self.kernels = [spec for spec in self.kernels if spec.owner != name]
            self.backends = [spec for spec in self.backends if spec.owner != name]
            self.records.pop(name, None)
            settings.forget_plans()

    def set_aside(self, name: str, distribution: str, version: str, error: BaseException) -> None:
        """Lists a plugin as broken, with its traceback, and warns once; raises under XENT_PLUGIN_ERRORS=raise."""
        self.kernels = [spec for spec in self.kernels if spec.owner != name]
        self.backends = [spec for spec in self.backends if spec.owner != name]
        text = "".join(traceback.format_exception(error))
        record = self.records[name] = PluginRecord(name, distribution, version, "broken", error=text)
        settings.forget_plans()
        if errors_are_raised():
            raise error
        warnings.warn(
            f"xent: {record.title} is set aside: {summary(error).rstrip('.')}. "
            f"xent.plugins() has its traceback; XENT_DISABLE={name} silences this.",
            PluginWarning,
            stacklevel=2,
        )

    def quarantine(self, owner: str, error: BaseException) -> None:
        """Sets aside a plugin whose ``check``, ``guard`` or policy raised."""
        with self.lock:
            record = self.records.get(owner)
            if record is not None and record.status == "active":
                if self.manager.has_plugin(owner):
                    self.manager.unregister(name=owner)
                self.set_aside(owner, record.distribution, record.version, error)


def errors_are_raised() -> bool:
    """Whether the error of a plugin is raised, and not warned of."""
    return os.environ.get("XENT_PLUGIN_ERRORS", "warn") == "raise"


def origin_of(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """The distribution of an entry point and its version."""
    return (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "")


def by_name(entries: Iterable[importlib.metadata.EntryPoint]) -> dict[str, importlib.metadata.EntryPoint]:
    """The entry points by name; a name that is taken, or one of xent's own, gets its distribution as a prefix."""
    entry_points: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in sorted(entries, key=lambda entry: (entry.name, origin_of(entry))):
        is_taken = entry.name in entry_points or entry.name.startswith("xent.")
        entry_points[f"{origin_of(entry)[0]}:{entry.name}" if is_taken else entry.name] = entry
    return entry_points


def own_version() -> str:
    """xent's version; empty where it runs from a source tree that was never installed."""
    try:
        return distribution.version()
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
    >>> [plugin.status for plugin in xent.plugins() if plugin.name == "by-name"]
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


def annotate_error(part: str, name: str, owner: str, error: Exception) -> None:
    """Adds a note to an error that names the part of a plugin that raised it; the call is never tried without it."""
    record = registry.records.get(owner)
    if record is not None and record.distribution != "xent" and not isinstance(error, LabelError):
        error.add_note(
            f"xent: raised while {part} {name!r} of {record.title} was at work; XENT_DISABLE={name} goes around it."
        )
