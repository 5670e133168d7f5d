"""TensorRT through its Python package and CUDA through ctypes: many samples answered in one process, without NumPy.

What differs between versions is asked for, never told from the number: bindings by place are all that 8.2 has and are
gone in 10, tensors by name came with 8.5.
"""

import array
import ctypes
import glob
import os
import struct
import sys

LIBRARY = "EDGEPRESS_CUDART"  # tests name their own
PLACES = ("/usr/local/cuda/lib64/libcudart.so*", "/usr/lib/*-linux-gnu/libcudart.so*")
IN_PACKAGES = ("nvidia/cuda_runtime/lib/libcudart.so*", "nvidia/cu*/lib/libcudart.so*")  # as pip installs it
TO_DEVICE, TO_HOST = 1, 2
# By the name of a type: bytes of one number, and its letter in `struct`.
TYPES = {"FLOAT": (4, "f"), "HALF": (2, "e"), "INT32": (4, "i"), "INT64": (8, "q"), "INT8": (1, "b"), "BOOL": (1, "?")}


class ApiError(Exception):
    """This TensorRT, or this engine, cannot be used from here."""


class Cuda(object):
    """The few calls of CUDA's runtime that an inference takes."""

    def __init__(self):
        self.library = _library()
        for name in ("cudaMalloc", "cudaMemcpy", "cudaStreamCreate", "cudaStreamSynchronize", "cudaFree"):
            getattr(self.library, name).restype = ctypes.c_int
        self.library.cudaMemcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.library.cudaFree.argtypes = [ctypes.c_void_p]
        self.library.cudaMalloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.library.cudaStreamCreate.argtypes = [ctypes.c_void_p]
        self.library.cudaStreamSynchronize.argtypes = [ctypes.c_void_p]

    def allocate(self, size):
        """The address of so many bytes on the device."""
        found = ctypes.c_void_p()
        self._checked("cudaMalloc", ctypes.byref(found), size)
        return found.value

    def free(self, address):
        self._checked("cudaFree", address)

    def stream(self):
        found = ctypes.c_void_p()
        self._checked("cudaStreamCreate", ctypes.byref(found))
        return found.value or 0

    def wait(self, stream):
        self._checked("cudaStreamSynchronize", stream)

    def send(self, address, data):
        self.send_from(address, ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))

    def send_from(self, address, pointer, size):
        self._checked("cudaMemcpy", address, pointer, size, TO_DEVICE)

    def receive(self, address, size):
        data = ctypes.create_string_buffer(size)
        self._checked("cudaMemcpy", ctypes.cast(data, ctypes.c_void_p), address, size, TO_HOST)
        return data.raw

    def _checked(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code != 0:
            raise ApiError("%s failed with error %d of CUDA" % (name, code))


class Tensor(object):
    """An input or output of an engine. place: among the bindings of versions that have them."""

    def __init__(self, name, place, is_input, kind):
        self.name, self.place, self.is_input = name, place, is_input
        if kind not in TYPES:
            raise ApiError("%s is of type %s, which is not known here" % (name, kind))
        self.width, self.letter = TYPES[kind]
        self.shape, self.size, self.address = None, 0, None

    def take(self, shape, cuda):
        count = 1
        for size in shape:
            if size < 0:
                raise ApiError("the shape of %s is open: %s" % (self.name, list(shape)))
            count *= size
        if self.address is not None:
            cuda.free(self.address)
        self.shape, self.size = [int(size) for size in shape], count * self.width
        self.address = cuda.allocate(self.size)


class Session(object):
    """An engine that answers one sample at a time. input_shape: of a sample, with its batch of 1."""

    def __init__(self, trt, cuda, plan, input_shape):
        self.cuda = cuda
        logger = trt.Logger(trt.Logger.ERROR)
        if hasattr(trt, "init_libnvinfer_plugins"):
            trt.init_libnvinfer_plugins(logger, "")
        self.runtime = trt.Runtime(logger)  # it must outlive the engine
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise ApiError("the engine cannot be read by this TensorRT (%s)" % getattr(trt, "__version__", "unknown"))
        self.context = self.engine.create_execution_context()
        if self.context is None:
            raise ApiError("no execution context: out of memory, most likely")
        self.by_name = hasattr(self.engine, "num_io_tensors")
        self.tensors = self._named(trt) if self.by_name else self._bound()
        self.input = next(tensor for tensor in self.tensors if tensor.is_input)
        self.outputs = [tensor for tensor in self.tensors if not tensor.is_input]
        self.take(input_shape)
        self.stream = cuda.stream()

    def take(self, input_shape):
        """From now on, inputs have this shape."""
        self._set_input_shape(input_shape)
        for tensor in self.tensors:
            tensor.take(self._shape_of(tensor), self.cuda)
            if self.by_name:
                self.context.set_tensor_address(tensor.name, tensor.address)

    def answer(self, data):
        """The first output, as bytes of float32. data: one sample as it lies in memory."""
        if len(data) != self.input.size:
            raise ApiError("a sample has %d bytes and the engine takes %d" % (len(data), self.input.size))
        self.cuda.send(self.input.address, data)
        self.run()
        first = self.outputs[0]
        return as_floats(self.cuda.receive(first.address, first.size), first.letter)

    def run(self):
        """Compute the outputs of what lies in the input, and wait for them."""
        if self.by_name:
            done = self.context.execute_async_v3(self.stream)
        else:
            addresses = [tensor.address for tensor in sorted(self.tensors, key=lambda tensor: tensor.place)]
            done = self.context.execute_async_v2(addresses, self.stream)
        if not done:
            raise ApiError("the engine did not run")
        self.cuda.wait(self.stream)

    def _named(self, trt):
        engine, found = self.engine, []
        for place in range(engine.num_io_tensors):
            name = engine.get_tensor_name(place)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            found.append(Tensor(name, place, is_input, _kind(engine.get_tensor_dtype(name))))
        return found

    def _bound(self):
        engine, found = self.engine, []
        for place in range(engine.num_bindings):
            kind = _kind(engine.get_binding_dtype(place))
            found.append(Tensor(engine.get_binding_name(place), place, engine.binding_is_input(place), kind))
        return found

    def _set_input_shape(self, shape):
        if self.by_name:
            self.context.set_input_shape(self.input.name, tuple(shape))
        else:
            self.context.set_binding_shape(self.input.place, tuple(shape))

    def _shape_of(self, tensor):
        if self.by_name:
            return self.context.get_tensor_shape(tensor.name)
        return self.context.get_binding_shape(tensor.place)


def answer_all(trt, cuda, plan_path, samples_path, shape, out):
    """Write the answers to all samples of a file as float32; their shape. shape: of the samples."""
    with open(plan_path, "rb") as file:
        session = Session(trt, cuda, file.read(), [1] + list(shape[1:]))
    with open(samples_path, "rb") as samples, open(out, "wb") as answers:
        for _ in range(shape[0]):
            answers.write(session.answer(samples.read(session.input.size)))
    return [shape[0]] + session.outputs[0].shape[1:]


def as_floats(data, letter):
    """The same numbers as float32."""
    if letter == "f":
        return data
    count = len(data) // struct.calcsize("<" + letter)
    return array.array("f", struct.unpack("<%d%s" % (count, letter), data)).tobytes()


def _kind(dtype):
    """`FLOAT` of `DataType.FLOAT`."""
    return str(dtype).rpartition(".")[2].upper()


def _library():
    named = os.environ.get(LIBRARY)
    found = sorted(path for place in PLACES for path in glob.glob(place))
    found += [path for place in IN_PACKAGES for root in sys.path for path in glob.glob(os.path.join(root, place))]
    tried = [named] if named else ["libcudart.so"] + found
    for path in tried:
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise ApiError("CUDA's runtime (libcudart.so) is not found")
