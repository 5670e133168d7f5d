"""Which ONNX operators and operator sets each TensorRT reads.

From docs/operators.md of github.com/onnx/onnx-tensorrt, branches 8.2-GA, 8.5-GA and 10.15-GA. For 10.0 to
10.14 the list of 9.2 is taken, with the opset limit of 10.0: what came in between is left out.
"""

import re

from .errors import RecipeError

Version = tuple[int, ...]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPSET_LIMITS: dict[Version, int] = {(8, 2): 13, (8, 5): 17, (10, 0): 20, (10, 15): 24}

SINCE: dict[Version, frozenset[str]] = {
    (8, 2): _names(
        """
        Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
        Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum
        DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten
        Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
        Greater GreaterOrEqual HardSigmoid Identity If ImageScaler InstanceNormalization IsNaN LRN
        LSTM LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max
        MaxPool Mean Min Mul Neg NonMaxSuppression Not Or PRelu Pad ParametricSoftplus Pow
        QuantizeLinear RNN RandomUniform RandomUniformLike Range ReduceL1 ReduceL2 ReduceLogSum
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
        Reshape Resize ReverseSequence Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu
        Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt
        Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where
        """
    ),
    (8, 5): _names(
        """
        GridSample HardSwish MeanVarianceNormalization Mod NonZero OneHot RandomNormal
        RandomNormalLike Reciprocal RoiAlign Shrink Trilu Xor
        """
    ),
    (10, 0): frozenset({"CastLike", "GroupNormalization", "Hardmax", "IsInf", "LayerNormalization"}),
    (10, 15): _names(
        """
        Attention BlackmanWindow DeformConv Gelu HammingWindow HannWindow Mish RMSNormalization
        RotaryEmbedding STFT
        """
    ),
}


def version_tuple(version: str) -> Version:
    """`8.2.1` as (8, 2, 1), to compare. RecipeError: it is no version."""
    if not re.fullmatch(r"\d+(\.\d+)+", version):
        raise RecipeError(f"{version!r} is no version of TensorRT: write numbers with dots between them, as in 8.2.1")
    return tuple(int(part) for part in version.split("."))


def opset_limit(version: str) -> int:
    """The newest ONNX operator set that this TensorRT reads; for older ones than 8.2 that of 8.2."""
    wanted = version_tuple(version)
    return max([limit for since, limit in OPSET_LIMITS.items() if since <= wanted], default=OPSET_LIMITS[8, 2])


def supported(version: str) -> frozenset[str]:
    """The operators that this TensorRT reads."""
    wanted = max(version_tuple(version), (8, 2))
    return frozenset().union(*(names for since, names in SINCE.items() if since <= wanted))
