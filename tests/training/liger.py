"""Liger's kernels on a CPU: Triton's interpreter stands in for a GPU, so a test can hold them to float64.

As a program, with TRITON_INTERPRET=1: trains a recipe as `llamafactory-cli train` does.
"""

import sys


class Number(float):
    """A float that a kernel may cast, as a compiled one may (Triton 3.6's interpreter hands it Python's)."""

    def to(self, dtype):
        return self


def interpret_kernels() -> None:
    """Fills what Triton's interpreter lacks for Liger's kernels; call it before they run."""
    import liger_kernel.ops.rms_norm
    import triton.language as tl
    from triton.runtime import interpreter

    convert = interpreter._implicit_cvt
    interpreter._implicit_cvt = lambda value: Number(value) if isinstance(value, float) else convert(value)
    # libdevice has no code for the interpreter.
    liger_kernel.ops.rms_norm.rsqrt = lambda x: tl.rsqrt(x)


if __name__ == "__main__":
    from llamafactory.cli import main

    interpret_kernels()
    sys.argv = ["llamafactory-cli", "train", sys.argv[1]]
    main()
