import importlib.util
from collections.abc import Callable
from typing import Any


class PicklableWrapper:
    """Call-through wrapper that lets closures and lambdas reach spawned workers, where cloudpickle is installed.

    Without cloudpickle it pickles what pickle can: functions and classes of a module.
    """

    def __init__(self, obj: Any):
        self._obj = obj._obj if isinstance(obj, PicklableWrapper) else obj

    def __reduce__(self) -> tuple[Callable, tuple]:
        if importlib.util.find_spec("cloudpickle") is None:
            return PicklableWrapper, (self._obj,)
        import cloudpickle

        return cloudpickle.loads, (cloudpickle.dumps(self._obj),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_obj":  # not set yet, as while copying
            raise AttributeError(name)
        return getattr(self._obj, name)
