"""Optional packages: a missing one is said in one line that names the extra which brings it."""

from __future__ import annotations

from types import TracebackType

__all__ = ["extra"]


class extra:
    """Around an import of optional packages: if one is missing, say which extra of pycnn brings it.

    Args:
        name: the extra, as in ``pip install 'pycnn[name]'``.
        package: what is imported, as its users call it.

    Raises:
        ModuleNotFoundError: in place of the import's own, with the command that helps.

    >>> with extra("viz", "Matplotlib"):
    ...     import a_module_that_nobody_has
    Traceback (most recent call last):
    ModuleNotFoundError: Matplotlib is not installed: pip install 'pycnn[viz]'
    """

    def __init__(self, name: str, package: str) -> None:
        self._name = name
        self._package = package

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ModuleNotFoundError):
            raise ModuleNotFoundError(
                f"{self._package} is not installed: pip install 'pycnn[{self._name}]'", name=error.name
            ) from None
