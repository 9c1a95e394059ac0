"""Stage 4, the inner loop of the processor kernels that multiply: a tile of a product in registers.

Loops over arrays leave the sums in memory, at a third of what the processor can do; four rows by
two vectors of sums in registers reach nine tenths of it. So this one loop is written in LLVM's own
vectors, which become those of the processor at hand, and the rest stays plain numba.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

TILE_ROWS = 4
TILE_COLUMNS = 16


def _tile(
    _: Any,
    x: Any,
    x_start: Any,
    x_row: Any,
    x_step: Any,
    y: Any,
    y_start: Any,
    y_step: Any,
    steps: Any,
    z: Any,
    z_start: Any,
    z_row: Any,
    add: Any,
) -> Any:
    """z[r, c] (+)= sum over s of x[r, s] y[s, c], for 4 rows r and 16 columns c.

    x, y and z are arrays of one float type, read as flat; nothing is checked. x[r, s] lies at
    x_start + r x_row + s x_step, so that x may be a matrix or its transpose; y[s, c] at y_start +
    s y_step + c; z[r, c] at z_start + r z_row + c. The order of the sums is that of s.

    Args:
        x, x_start, x_row, x_step: the left matrix.
        y, y_start, y_step: the right matrix.
        steps: length of the sums.
        z, z_start, z_row: the result.
        add: True adds to z, False overwrites it.
    """
    place = types.intp
    signature = types.void(
        *(x, place, place, place),
        *(y, place, place),
        *(place, z, place, place, types.boolean),
    )
    return signature, _generate


tile: Any = intrinsic(_tile)


def _generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """The LLVM code of one tile."""
    _, x_start, x_row, x_step, _, y_start, y_step, steps, _, z_start, z_row, add = args
    left, right, out = (
        context.make_array(signature.args[n])(context, builder, args[n]).data for n in (0, 4, 8)
    )
    number = context.get_data_type(signature.args[0].dtype)
    size = signature.args[0].dtype.bitwidth // 8
    lanes = 32 // size  # vectors of 256 bits; wider ones give no more here
    vector = ir.VectorType(number, lanes)
    place = context.get_value_type(types.intp)

    def at(base: Any, offset: Any, column: int) -> Any:
        offset = builder.add(offset, ir.Constant(place, column))
        return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

    def row_of(start: Any, step: Any, row: int) -> Any:
        return builder.add(start, builder.mul(ir.Constant(place, row), step))

    columns = range(0, TILE_COLUMNS, lanes)
    # LLVM keeps these in registers.
    sums = {(r, c): cgutils.alloca_once(builder, vector) for r in range(TILE_ROWS) for c in columns}
    for slot in sums.values():
        builder.store(ir.Constant(vector, None), slot)
    with cgutils.for_range(builder, steps, intp=place) as loop:
        x_place = builder.add(x_start, builder.mul(loop.index, x_step))
        y_place = builder.add(y_start, builder.mul(loop.index, y_step))
        factors = {c: builder.load(at(right, y_place, c), align=size) for c in columns}
        for r in range(TILE_ROWS):
            value = builder.load(builder.gep(left, [row_of(x_place, x_row, r)]))
            repeated = _repeat(builder, value, vector)
            for c in columns:
                # "contract" lets it become one instruction where the processor has it.
                product = builder.fmul(repeated, factors[c], flags=["contract"])
                summed = builder.fadd(builder.load(sums[r, c]), product, flags=["contract"])
                builder.store(summed, sums[r, c])
    for (r, c), slot in sums.items():
        target = at(out, row_of(z_start, z_row, r), c)
        value = builder.load(slot)
        with builder.if_else(add) as (then, otherwise):
            with then:
                value_and = builder.fadd(builder.load(target, align=size), value)
                builder.store(value_and, target, align=size)
            with otherwise:
                builder.store(value, target, align=size)
    return context.get_dummy_value()


def _repeat(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of one value."""
    index = ir.IntType(32)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(index, 0))
    zeros = ir.Constant(ir.VectorType(index, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, zeros)
