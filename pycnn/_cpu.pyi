# The native module, compiled from csrc/bindings: its functions take plain checked arguments, so they stay untyped here.
from typing import Any

def __getattr__(name: str) -> Any: ...
