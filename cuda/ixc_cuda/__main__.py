"""`python -m ixc_cuda`: compile every kernel that may be launched, and list what came of it.

Needs no GPU. Names of sources (rms_norm.cu) as arguments narrow the list to theirs.
"""

import sys
import time
from collections.abc import Sequence

from ixc_cuda.catalogue import all_instantiations
from ixc_cuda.compiler import CompilationFailed
from ixc_cuda.cubin_cache import CachedKernel, Wanted, cache_all, cache_folder

_ROW = "{:24} {:64} {:7} {:>9} {:>7} {:>6} {:>7}"


def main(sources: Sequence[str]) -> int:
    listed = [each for each in all_instantiations() if not sources or each.source in sources]
    wanted = [
        Wanted(source=each.source, name=each.name, architecture=architecture)
        for each in listed
        for architecture in each.architectures
    ]
    print(_ROW.format("source", "kernel", "for", "registers", "spilled", "stack", "shared"))
    started = time.monotonic()
    try:
        kernels = cache_all(wanted, progress=_print_row)
    except CompilationFailed as error:
        print(error, file=sys.stderr)
        return 1
    compiled = sum(kernel.was_compiled for kernel in kernels)
    print(
        f"{len(kernels)} kernels, {compiled} of them compiled now, "
        f"in {time.monotonic() - started:.1f} s; kept in {cache_folder()}"
    )
    return 0


def _print_row(wanted: Wanted, kernel: CachedKernel) -> None:
    report = kernel.report
    numbers = (report.registers, report.spilled_bytes, report.stack_bytes, report.shared_bytes)
    print(_ROW.format(wanted.source, wanted.name, wanted.architecture, *numbers))
    for warning in report.warnings:
        print(f"    {warning}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
