"""Stage 4, vectors and masks of bits for the processor kernels that search: neighbours, samples.

A search reads many numbers and keeps few. With plain loops over arrays each number costs a branch;
here 32 of them become one word of bits, and tiles of distances stay in registers while they are
summed. Written in LLVM's own vectors, which become those of the processor at hand; the rest stays
plain numba. Nothing is checked: the callers keep every access inside the arrays.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic

# What it makes is called from compiled code alone, without the first parameter.
intrinsic: Any = numba_intrinsic

MASK = 32  # numbers of one word of bits
# A tile is as large as the registers hold: 16 of 32 bytes, or with AVX-512 32 of 64 bytes.
WIDE = bool(llvm.get_host_cpu_features().get("avx512f"))
TILE_ROWS = 8 if WIDE else 6
TILE_BYTES = 128 if WIDE else 64  # of one row of a tile: 32 or 16 columns in fp32
PRODUCT_ROWS = 8 if WIDE else 4  # of a tile of a product; divides its columns
LANES = 64  # maxima that `lane_maxima` gives

INDEX = ir.IntType(32)
PLACE = ir.IntType(64)


def _width(dtype: Any) -> int:
    """Bytes of one number."""
    return int(dtype.bitwidth) // 8


def _pointer(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    data = context.make_array(kind)(context, builder, value=array).data
    return builder.gep(data, [place])


def _load(builder: Any, pointer: Any, lanes: int, align: int) -> Any:
    vector = ir.VectorType(pointer.type.pointee, lanes)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=align)


def _store(builder: Any, value: Any, pointer: Any, align: int) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=align)


def _step(builder: Any, pointer: Any, count: int) -> Any:
    return builder.gep(pointer, [ir.Constant(PLACE, count)])


def _repeat(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of one value."""
    nothing = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(INDEX, 0))
    zeros = ir.Constant(ir.VectorType(INDEX, lanes), [0] * lanes)
    return builder.shuffle_vector(first, nothing, zeros)


def _choose(builder: Any, relation: str, a: Any, b: Any) -> Any:
    """a where it stands in the relation to b, else b: maxima with ">", minima with "<"."""
    return builder.select(builder.fcmp_ordered(relation, a, b), a, b)


@intrinsic
def score_tile(
    _: Any,
    rows: Any,
    columns: Any,
    start: Any,
    start_at: Any,
    channels: Any,
    direct: Any,
    out: Any,
    out_at: Any,
    out_row: Any,
    raw: Any,
    raw_at: Any,
    raw_row: Any,
    keep: Any,
) -> Any:
    """out[r, j] = start[j] - |x_r - y_j|^2, or start[j] + x_r . y_j, for rows r and columns j.

    The sum runs over the channels in order, in the same way at every place of every tile, and is
    the same with x and y exchanged: equal points have equal scores.

    Args:
        rows: (channels, TILE_ROWS) array of x.
        columns: (channels, tile columns) array of y.
        start, start_at: what is added to the sums, from this place on.
        channels: length of the sums.
        direct: True for distances, False for products.
        out, out_at, out_row: the result lies at out_at + r out_row + j of a contiguous array.
        raw, raw_at, raw_row, keep: if keep is True, the sums alone lie at raw_at + r raw_row + j.
    """
    place, truth = types.intp, types.boolean
    given = (rows, columns, start, place, place, truth)
    return types.void(*given, out, place, place, raw, place, place, truth), _generate_tile


def _generate_tile(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kinds, zero = signature.args, ir.Constant(PLACE, 0)
    size = _width(kinds[0].dtype)
    lanes = TILE_BYTES // size // 2
    left = _pointer(context, builder, kinds[0], args[0], zero)
    right = _pointer(context, builder, kinds[1], args[1], zero)
    begin = _pointer(context, builder, kinds[2], args[2], args[3])
    out = _pointer(context, builder, kinds[6], args[6], args[7])
    raw = _pointer(context, builder, kinds[9], args[9], args[10])
    vector = ir.VectorType(left.type.pointee, lanes)
    tile = [(r, v) for r in range(TILE_ROWS) for v in range(2)]
    # LLVM keeps these in registers.
    sums = {place: cgutils.alloca_once(builder, vector) for place in tile}
    for slot in sums.values():
        builder.store(ir.Constant(vector, None), slot)

    def add_channels(term: Any) -> None:
        with cgutils.for_range(builder, args[4], intp=PLACE) as loop:
            row = builder.gep(left, [builder.mul(loop.index, ir.Constant(PLACE, TILE_ROWS))])
            column = builder.gep(right, [builder.mul(loop.index, ir.Constant(PLACE, 2 * lanes))])
            y = [_load(builder, _step(builder, column, v * lanes), lanes, size) for v in range(2)]
            for r in range(TILE_ROWS):
                x = _repeat(builder, builder.load(_step(builder, row, r)), lanes)
                for v in range(2):
                    slot = sums[r, v]
                    builder.store(term(builder.load(slot), x, y[v]), slot)

    def distance(total: Any, x: Any, y: Any) -> Any:
        apart = builder.fsub(x, y)
        # "contract" lets both become one instruction where the processor has it.
        square = builder.fmul(apart, apart, flags=["contract"])
        return builder.fsub(total, square, flags=["contract"])

    def product(total: Any, x: Any, y: Any) -> Any:
        return builder.fadd(total, builder.fmul(x, y, flags=["contract"]), flags=["contract"])

    with builder.if_else(args[5]) as (then, otherwise):
        with then:
            add_channels(distance)
        with otherwise:
            add_channels(product)
    for (r, v), slot in sums.items():
        target = builder.gep(out, [builder.mul(args[8], ir.Constant(PLACE, r))])
        more = _load(builder, _step(builder, begin, v * lanes), lanes, size)
        total = builder.fadd(builder.load(slot), more)
        _store(builder, total, _step(builder, target, v * lanes), size)
    with builder.if_then(args[12]):
        for (r, v), slot in sums.items():
            target = builder.gep(raw, [builder.mul(args[11], ir.Constant(PLACE, r))])
            _store(builder, builder.load(slot), _step(builder, target, v * lanes), size)
    return context.get_dummy_value()


@intrinsic
def product_tile(
    _: Any,
    left: Any,
    left_at: Any,
    left_row: Any,
    right: Any,
    right_at: Any,
    steps: Any,
    out: Any,
    out_at: Any,
    out_row: Any,
    add: Any,
) -> Any:
    """out[r, j] (+)= sum over s of left[s, r] right[s, j], for rows r and columns j of a tile.

    The order of the sum is that of s.

    Args:
        left, left_at, left_row: left[s, r] lies at left_at + s left_row + r of a flat array.
        right, right_at: (steps, tile columns), from this place of a flat array on.
        steps: length of the sums.
        out, out_at, out_row: the result lies at out_at + r out_row + j of a flat array.
        add: True adds to it, False overwrites it.
    """
    place = types.intp
    given = (left, place, place, right, place, place, out, place, place, types.boolean)
    return types.void(*given), _generate_product


def _generate_product(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kinds = signature.args
    size = _width(kinds[0].dtype)
    lanes = TILE_BYTES // size // 2
    left = _pointer(context, builder, kinds[0], args[0], args[1])
    right = _pointer(context, builder, kinds[3], args[3], args[4])
    out = _pointer(context, builder, kinds[6], args[6], args[7])
    vector = ir.VectorType(left.type.pointee, lanes)
    tile = [(r, v) for r in range(PRODUCT_ROWS) for v in range(2)]
    # LLVM keeps these in registers.
    sums = {place: cgutils.alloca_once(builder, vector) for place in tile}
    for slot in sums.values():
        builder.store(ir.Constant(vector, None), slot)
    with cgutils.for_range(builder, args[5], intp=PLACE) as loop:
        row = builder.gep(left, [builder.mul(loop.index, args[2])])
        column = builder.gep(right, [builder.mul(loop.index, ir.Constant(PLACE, 2 * lanes))])
        y = [_load(builder, _step(builder, column, v * lanes), lanes, size) for v in range(2)]
        for r in range(PRODUCT_ROWS):
            x = _repeat(builder, builder.load(_step(builder, row, r)), lanes)
            for v in range(2):
                # "contract" lets both become one instruction where the processor has it.
                term = builder.fmul(x, y[v], flags=["contract"])
                total = builder.fadd(builder.load(sums[r, v]), term, flags=["contract"])
                builder.store(total, sums[r, v])
    for (r, v), slot in sums.items():
        target = builder.gep(out, [builder.mul(args[8], ir.Constant(PLACE, r))])
        target = _step(builder, target, v * lanes)
        with builder.if_else(args[9]) as (then, otherwise):
            with then:
                before = _load(builder, target, lanes, size)
                _store(builder, builder.fadd(before, builder.load(slot)), target, size)
            with otherwise:
                _store(builder, builder.load(slot), target, size)
    return context.get_dummy_value()


@intrinsic
def turn_tile(
    _: Any,
    raw: Any,
    raw_at: Any,
    raw_row: Any,
    start: Any,
    start_at: Any,
    out: Any,
    out_at: Any,
    out_row: Any,
) -> Any:
    """out[j, r] = raw[r, j] + start[r] for as many r and j as a vector has numbers.

    Args:
        raw, raw_at, raw_row: raw[r, j] lies at raw_at + r raw_row + j of a contiguous array.
        start, start_at: what is added, from this place on.
        out, out_at, out_row: out[j, r] lies at out_at + j out_row + r.
    """
    place = types.intp
    return types.void(raw, place, place, start, place, out, place, place), _generate_turn


def _generate_turn(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kinds = signature.args
    size = _width(kinds[0].dtype)
    lanes = TILE_BYTES // size // 2
    source = _pointer(context, builder, kinds[0], args[0], args[1])
    begin = _pointer(context, builder, kinds[3], args[3], args[4])
    out = _pointer(context, builder, kinds[5], args[5], args[6])

    def row(pointer: Any, step: Any, n: int) -> Any:
        return builder.gep(pointer, [builder.mul(step, ir.Constant(PLACE, n))])

    tile = [_load(builder, row(source, args[2], r), lanes, size) for r in range(lanes)]
    half = lanes // 2
    # Rows n and n + half, interleaved, are rows 2 n and 2 n + 1; after log2(lanes) times this the
    # tile is turned.
    order = [n // 2 + (n % 2) * lanes for n in range(2 * lanes)]
    mixed = [
        ir.Constant(ir.VectorType(INDEX, lanes), order[first : first + lanes])
        for first in (0, lanes)
    ]
    for _ in range(lanes.bit_length() - 1):
        tile = [
            builder.shuffle_vector(tile[n], tile[n + half], places)
            for n in range(half)
            for places in mixed
        ]
    more = _load(builder, begin, lanes, size)
    for n, vector in enumerate(tile):
        _store(builder, builder.fadd(vector, more), row(out, args[7], n), size)
    return context.get_dummy_value()


@intrinsic
def lane_maxima(_: Any, numbers: Any, at: Any, step: Any, count: Any, out: Any, out_at: Any) -> Any:
    """out[out_at + l] = max over c < count of numbers[at + c step + l], for the LANES lanes l."""
    place = types.intp
    return types.void(numbers, place, place, place, out, place), _generate_maxima


def _generate_maxima(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kinds = signature.args
    size = _width(kinds[0].dtype)
    lanes = TILE_BYTES // size // 2
    source = _pointer(context, builder, kinds[0], args[0], args[1])
    out = _pointer(context, builder, kinds[4], args[4], args[5])
    vector = ir.VectorType(source.type.pointee, lanes)
    slots = [cgutils.alloca_once(builder, vector) for _ in range(LANES // lanes)]
    for slot in slots:
        builder.store(ir.Constant(vector, [float("-inf")] * lanes), slot)
    with cgutils.for_range(builder, args[3], intp=PLACE) as loop:
        base = builder.gep(source, [builder.mul(loop.index, args[2])])
        for n, slot in enumerate(slots):
            new = _load(builder, _step(builder, base, n * lanes), lanes, size)
            builder.store(_choose(builder, ">", new, builder.load(slot)), slot)
    for n, slot in enumerate(slots):
        _store(builder, builder.load(slot), _step(builder, out, n * lanes), size)
    return context.get_dummy_value()


@intrinsic
def lane_extremes(_: Any, numbers: Any, at: Any) -> Any:
    """The greatest of LANES numbers, and the least of those that are not -inf (or inf)."""
    return types.UniTuple(numbers.dtype, 2)(numbers, types.intp), _generate_extremes


def _generate_extremes(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kind, half = signature.args[0], LANES // 2
    pointer = _pointer(context, builder, kind, args[0], args[1])
    size = _width(kind.dtype)
    parts = [_load(builder, _step(builder, pointer, n * half), half, size) for n in range(2)]

    def reduced(relation: str, a: Any, b: Any) -> Any:
        value, lanes = _choose(builder, relation, a, b), half
        while lanes > 1:
            lanes //= 2
            halves = [
                builder.shuffle_vector(
                    value,
                    value,
                    ir.Constant(ir.VectorType(INDEX, lanes), list(range(first, first + lanes))),
                )
                for first in (0, lanes)
            ]
            value = _choose(builder, relation, *halves)
        return builder.extract_element(value, ir.Constant(INDEX, 0))

    def all_of(value: str) -> Any:
        return ir.Constant(parts[0].type, [float(value)] * half)

    known = [
        builder.select(builder.fcmp_ordered(">", part, all_of("-inf")), part, all_of("inf"))
        for part in parts
    ]
    ends = [reduced(">", *parts), reduced("<", *known)]
    return context.make_tuple(builder, signature.return_type, ends)


def _generate_mask(relation: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        pointer = _pointer(context, builder, kind, args[0], args[1])
        numbers = _load(builder, pointer, MASK, _width(kind.dtype))
        bound = _repeat(builder, args[2], MASK)
        return builder.bitcast(builder.fcmp_ordered(relation, numbers, bound), INDEX)

    return generate


@intrinsic
def above(_: Any, numbers: Any, at: Any, bound: Any) -> Any:
    """Bit n is numbers[at + n] > bound, for MASK bits."""
    return types.uint32(numbers, types.intp, numbers.dtype), _generate_mask(">")


@intrinsic
def at_least(_: Any, numbers: Any, at: Any, bound: Any) -> Any:
    """Bit n is numbers[at + n] >= bound, for MASK bits."""
    return types.uint32(numbers, types.intp, numbers.dtype), _generate_mask(">=")


@intrinsic
def lowest_bit(_: Any, bits: Any) -> Any:
    """Place of the lowest bit that is set; MASK if none is."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.cttz(args[0], ir.Constant(ir.IntType(1), 0)), PLACE)

    return types.int64(types.uint32), generate


@intrinsic
def count_bits(_: Any, bits: Any) -> Any:
    """How many bits are set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(builder.ctpop(args[0]), PLACE)

    return types.int64(types.uint32), generate
