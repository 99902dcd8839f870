"""The object code of a compiled loop, as ``kept.py`` loads it without Numba.

A loop's code asks two functions of Numba's: for memory, and to let it go. It gets others of the same names.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding
from numba import types

MEMORY = """
declare ptr @malloc(i64)
declare void @free(ptr)

define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %alignment = zext i32 %align to i64
  %head = add i64 %alignment, 48
  %bytes = add i64 %size, %head
  %block = call ptr @malloc(i64 %bytes)
  %failed = icmp eq ptr %block, null
  br i1 %failed, label %end, label %fill

fill:
  %begin = ptrtoint ptr %block to i64
  %after = add i64 %begin, %head
  %mask = sub i64 0, %alignment
  %address = and i64 %after, %mask
  store i64 1, ptr %block
  %data = getelementptr i8, ptr %block, i64 24
  store i64 %address, ptr %data
  br label %end

end:
  ret ptr %block
}

define void @NRT_MemInfo_call_dtor(ptr %block) {
  call void @free(ptr %block)
  ret void
}
"""
"""Numba's record of memory has the count of references first, and the address of the data at byte 24."""
KNOWN = frozenset({"malloc", "free", "memcpy", "memset", "memmove"})
"""The functions of the C library that the code may call."""


def object_code(compiled: Any, symbol: str) -> bytes | None:
    """The object code of what Numba compiled, its function under this symbol; None if it needs more of Numba."""
    library = compiled.library
    module = library._get_module_for_linking().clone()
    module.link_in(binding.parse_assembly(MEMORY))
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration:
            value.linkage = "internal"
    entry = module.get_function(compiled.fndesc.llvm_func_name)
    kinds = compiled.fndesc.argtypes
    fields = sum(5 + 2 * kind.ndim if isinstance(kind, types.Array) else 1 for kind in kinds)
    if len([*entry.arguments]) != 2 + fields:  # another calling convention than that of ``kept.callable_of``
        return None
    entry.name, entry.linkage = symbol, "external"
    machine = library.codegen._tm
    passes = binding.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=0)))
    needed = {function.name for function in module.functions if function.is_declaration}
    if any(not name.startswith("llvm.") for name in needed - KNOWN):
        return None
    code: bytes = machine.emit_object(module)
    return code
