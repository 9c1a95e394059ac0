"""Stage 4, vectors in the processor kernels: some 64 bytes of numbers that stay in registers.

Loops that keep several sums per channel are not vectorised by the compiler when these lie in
arrays, or keep loading and storing them. Here a vector is a value of its own, so that kernels can
say what is in registers: `load` 16 numbers of fp32 (8 of fp64), work on them with + - *,
comparisons and `where`, and `store` them. They are LLVM's own vectors, which become those of the
processor.

Arrays are flat (one axis, contiguous); nothing is checked.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, register_model

# What it makes is called from compiled code alone, without the first parameter.
intrinsic: Any = numba_intrinsic

BYTES = 64
# Options of all kernels. Infinite and missing values keep their meaning.
FLAGS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
}


class Lanes(types.Type):
    """Type of a vector of `count` numbers of a numba type, or of truth values."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(_element(lanes.dtype), lanes.count))


def _element(dtype: Any) -> Any:
    if dtype == types.boolean:
        return ir.IntType(1)
    if dtype in types.integer_domain:
        return ir.IntType(dtype.bitwidth)
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def _count(dtype: Any) -> int:
    return BYTES * 8 // dtype.bitwidth


def pair_of(dtype: Any) -> Lanes:
    """Type of two vectors, one after the other, of a numba type."""
    return Lanes(dtype, 2 * _count(dtype))


def _integers(floats: Lanes) -> Lanes:
    """Whole numbers as wide as the floats, so that comparisons of either choose among the other."""
    return Lanes(types.int32 if floats.dtype == types.float32 else types.int64, floats.count)


def _address(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [place])


def _load(builder: Any, address: Any, element: Any, count: int, align: int) -> Any:
    vector = builder.bitcast(address, ir.VectorType(element, count).as_pointer())
    return builder.load(vector, align=align)


def _repeat(builder: Any, value: Any, count: int) -> Any:
    vector = ir.VectorType(value.type, count)
    first = builder.insert_element(
        ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _loader(vectors: int) -> Any:
    def typed(_: Any, array: Any, place: Any) -> Any:
        lanes = Lanes(array.dtype, vectors * _count(array.dtype))

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            address = _address(context, builder, sig.args[0], args[0], args[1])
            return _load(builder, address, _element(array.dtype), lanes.count, _size(array.dtype))

        return lanes(array, types.intp), generate

    return typed


@intrinsic
def load(_: Any, array: Any, place: Any) -> Any:
    """array[place : place + 16] of fp32, or 8 of fp64."""
    return _loader(1)(_, array, place)


@intrinsic
def load_pair(_: Any, array: Any, place: Any) -> Any:
    """Two vectors, one after the other, as one value: an instruction on it becomes two."""
    return _loader(2)(_, array, place)


def _size(dtype: Any) -> int:
    return int(dtype.bitwidth) // 8


@intrinsic
def load_whole(_: Any, array: Any, place: Any, like: Any) -> Any:
    """Unsigned whole numbers array[place : ...], as many and as wide as the floats `like`."""
    lanes = _integers(like)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, sig.args[0], args[0], args[1])
        size = _size(array.dtype)
        narrow = _load(builder, address, _element(array.dtype), lanes.count, size)
        return builder.zext(narrow, context.get_value_type(lanes))

    return lanes(array, types.intp, like), generate


@intrinsic
def load_like(_: Any, array: Any, place: Any, like: Any) -> Any:
    """array[place : ...] as the floats `like`: of their own type, or of bf16 as 16 bits each."""
    lanes = like if array.dtype == like.dtype else Lanes(types.int32, like.count)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, sig.args[0], args[0], args[1])
        size = _size(array.dtype)
        found = _load(builder, address, _element(array.dtype), like.count, size)
        if array.dtype == like.dtype:
            return found
        # They are the upper halves of numbers of fp32.
        wide = builder.zext(found, context.get_value_type(lanes))
        upper = builder.shl(wide, ir.Constant(wide.type, [16] * like.count))
        return builder.bitcast(upper, context.get_value_type(like))

    return like(array, types.intp, like), generate


@intrinsic
def store_half(_: Any, array: Any, place: Any, value: Any) -> Any:
    """array[place : ...] = numbers of fp32 as 16 bits of bf16 each, to the nearest even."""
    if array.dtype != types.uint16 or value.dtype != types.float32:
        raise TypeError(f"16 bits and fp32 are expected, not {array.dtype} and {value.dtype}")

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        words = ir.VectorType(ir.IntType(32), value.count)

        def each(number: int) -> Any:
            return ir.Constant(words, [number] * value.count)

        bits = builder.bitcast(args[2], words)
        last = builder.and_(builder.lshr(bits, each(16)), each(1))
        near = builder.add(bits, builder.add(last, each(0x7FFF)))
        # What is no number might become one.
        none = builder.fcmp_unordered("uno", args[2], args[2])
        kept = builder.select(none, each(0x7FC00000), near)
        half = builder.trunc(
            builder.lshr(kept, each(16)), ir.VectorType(ir.IntType(16), value.count)
        )
        address = _address(context, builder, sig.args[0], args[0], args[1])
        builder.store(half, builder.bitcast(address, half.type.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def to_line(_: Any, array: Any) -> Any:
    """Numbers to skip until vectors lie in one line of the cache each; in two, they cost twice."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        place = builder.ptrtoint(data, ir.IntType(64))
        short = builder.and_(builder.neg(place), ir.Constant(ir.IntType(64), BYTES - 1))
        return builder.udiv(short, ir.Constant(ir.IntType(64), _size(array.dtype)))

    return types.intp(array), generate


@intrinsic
def store(_: Any, array: Any, place: Any, value: Any) -> Any:
    """array[place : ...] = value; whole numbers are cut to those of the array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, sig.args[0], args[0], args[1])
        vector = ir.VectorType(_element(array.dtype), value.count)
        cut = args[2] if args[2].type == vector else builder.trunc(args[2], vector)
        pointer = builder.bitcast(address, vector.as_pointer())
        builder.store(cut, pointer, align=_size(array.dtype))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def store_bits(_: Any, array: Any, place: Any, mask: Any) -> Any:
    """Truth values as bits, the first one the lowest, into bytes of an array from `place` on."""
    if array.dtype != types.uint8:
        raise TypeError(f"an array of bytes is expected, not of {array.dtype}")

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = _address(context, builder, sig.args[0], args[0], args[1])
        bits = builder.bitcast(args[2], ir.IntType(mask.count))
        builder.store(bits, builder.bitcast(address, bits.type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, mask), generate


@intrinsic
def with_bits(_: Any, words: Any, mask: Any, bit: Any) -> Any:
    """Whole numbers, with the bit of this number set where the mask is true."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        number = context.cast(builder, args[2], sig.args[2], words.dtype)
        one = builder.shl(ir.Constant(number.type, 1), number)
        set_ = builder.select(
            args[1], _repeat(builder, one, words.count), ir.Constant(args[0].type, None)
        )
        return builder.or_(args[0], set_)

    return words(words, mask, bit), generate


@intrinsic
def repeat(_: Any, number: Any, like: Any) -> Any:
    """A vector of one number, as the floats `like`."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        cast = context.cast(builder, args[0], sig.args[0], like.dtype)
        return _repeat(builder, cast, like.count)

    return like(number, like), generate


@intrinsic
def repeat_whole(_: Any, number: Any, like: Any) -> Any:
    """A vector of one whole number, as many and as wide as the floats `like`."""
    lanes = _integers(like)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        cast = context.cast(builder, args[0], sig.args[0], lanes.dtype)
        return _repeat(builder, cast, lanes.count)

    return lanes(number, like), generate


@intrinsic
def larger(_: Any, a: Any, b: Any) -> Any:
    """a > b."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fcmp_ordered(">", args[0], args[1])

    return Lanes(types.boolean, a.count)(a, b), generate


@intrinsic
def missing(_: Any, a: Any) -> Any:
    """a is no number."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fcmp_unordered("uno", args[0], args[0])

    return Lanes(types.boolean, a.count)(a), generate


@intrinsic
def positive(_: Any, a: Any) -> Any:
    """a > 0."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fcmp_ordered(">", args[0], ir.Constant(args[0].type, None))

    return Lanes(types.boolean, a.count)(a), generate


@intrinsic
def same(_: Any, a: Any, b: Any) -> Any:
    """a == b, of whole numbers."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.icmp_signed("==", args[0], args[1])

    return Lanes(types.boolean, a.count)(a, b), generate


@intrinsic
def where(_: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask is true, b elsewhere."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(mask, a, b), generate


class _Arithmetic(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 2 and all(isinstance(a, Lanes) for a in args) and args[0] == args[1]:
            return signature(args[0], *args)
        return None


def _arithmetic(python: Any, name: str) -> None:
    @infer_global(python)
    class _Typed(_Arithmetic):
        pass

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # "contract" lets product and sum become one instruction where the processor has it.
        return getattr(builder, name)(*args, flags=["contract"])

    lower_builtin(python, Lanes, Lanes)(generate)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
