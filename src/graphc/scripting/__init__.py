"""`graphc.jit.script`: Python code with its control flow as something a file can hold and run without that Python code."""

from graphc.scripting.convert import script
from graphc.scripting.module import ScriptFunction, ScriptModule

__all__ = ["ScriptFunction", "ScriptModule", "script"]
