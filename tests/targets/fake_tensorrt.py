"""Stand-ins for TensorRT's Python package as each generation has it, for CUDA's runtime, and for the driver."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

# A device's memory is this machine's; a stream is a number that must come back. cudaMemcpy refuses what is not its own.
CUDART = r"""
#include <stdlib.h>
#include <string.h>
int cudaMalloc(void **found, size_t size) { *found = malloc(size); return *found ? 0 : 2; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    if (kind != 1 && kind != 2) return 21;
    memcpy(to, from, size);
    return 0;
}
int cudaFree(void *found) { free(found); return 0; }
int cudaStreamCreate(void **stream) { *stream = (void *)77; return 0; }
int cudaStreamSynchronize(void *stream) { return stream == (void *)77 ? 0 : 400; }
"""
# A driver with one GPU, or as many as GPUS says.
DRIVER = r"""
#include <stdlib.h>
#include <string.h>
int cuInit(unsigned flags) { return getenv("GPUS") && !atoi(getenv("GPUS")) ? 100 : 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Stand-in", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *sm = getenv("SM") ? getenv("SM") : "8.6";
    *value = attribute == 75 ? sm[0] - '0' : attribute == 76 ? sm[2] - '0' : -1;
    return 0;
}
"""
# Answers the sum of a sample and its negative. bindings, names: what this generation has of both ways (see the table of
# the Python API by version); half: it answers in FP16; broken: it cannot read the engine.
TENSORRT = """
import ctypes, json, struct
__version__ = "{version}"
class Logger:
    ERROR = 1
    def __init__(self, level): pass
class TensorIOMode: INPUT, OUTPUT = 1, 2
class Type:
    def __init__(self, name): self.name = name
    def __str__(self): return "DataType." + self.name
def init_libnvinfer_plugins(logger, namespace): return True
OUT = "HALF" if {half} else "FLOAT"
class Context:
    def __init__(self): self.addresses, self.shape, self.profiler = dict(), None, None
    def run(self, addresses, stream):
        assert stream == 77
        count = 1
        for size in self.shape[1:]: count *= size
        answer = b""
        for row in range(self.shape[0]):
            values = struct.unpack("<%df" % count, ctypes.string_at(addresses[0] + 4 * count * row, 4 * count))
            answer += struct.pack("<2" + ("e" if {half} else "f"), sum(values), -sum(values))
        ctypes.memmove(addresses[1], answer, len(answer))
        if self.profiler is not None: self.profiler.report_layer_time("conv + relu", 0.5)
        return True
    if {bindings}:
        def set_binding_shape(self, place, shape): self.shape = shape; return True
        def get_binding_shape(self, place): return self.shape if place == 0 else (self.shape[0], 2)
        def execute_async_v2(self, bindings, stream_handle): return self.run(bindings, stream_handle)
    if {names}:
        def set_input_shape(self, name, shape): self.shape = shape; return True
        def get_tensor_shape(self, name): return self.shape if name == "input" else (self.shape[0], 2)
        def set_tensor_address(self, name, address): self.addresses[name] = address; return True
        def execute_async_v3(self, stream_handle):
            return self.run([self.addresses["input"], self.addresses["output"]], stream_handle)
class Inspector:
    def __init__(self, plan): self.plan = plan
    def get_engine_information(self, form):
        assert form == LayerInformationFormat.JSON
        kind = "Int8" if b"INT8" in self.plan else "FP32"
        tensors = [dict([("Name", "x"), ("Format/Datatype", "Row major " + kind)])]
        layer = dict(Name="conv + relu", ParameterType="Convolution", Inputs=tensors, Outputs=tensors)
        return json.dumps(dict(Layers=[layer], Bindings=[]))
class Engine:
    def __init__(self, plan): self.plan = plan
    def create_engine_inspector(self): return Inspector(self.plan)
    def create_execution_context(self): return Context()
    if {bindings}:
        num_bindings = 2
        def get_binding_name(self, place): return ["input", "output"][place]
        def binding_is_input(self, place): return place == 0
        def get_binding_dtype(self, place): return Type("FLOAT" if place == 0 else OUT)
    if {names}:
        num_io_tensors = 2
        def get_tensor_name(self, place): return ["input", "output"][place]
        def get_tensor_mode(self, name): return TensorIOMode.INPUT if name == "input" else TensorIOMode.OUTPUT
        def get_tensor_dtype(self, name): return Type("FLOAT" if name == "input" else OUT)
class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, plan): return None if {broken} else Engine(bytes(plan))
class ILogger:
    class Severity: INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2
    def __init__(self): pass
class IProfiler:
    def __init__(self): pass
class LayerInformationFormat: ONELINE, JSON = 0, 1
class ProfilingVerbosity: LAYER_NAMES_ONLY, NONE, DETAILED = 0, 1, 2
class NetworkDefinitionCreationFlag:
    if {major} < 11: EXPLICIT_BATCH = 0
class BuilderFlag:
    if {major} < 11: FP16, INT8 = "FP16", "INT8"
if {pools}:
    class MemoryPoolType: WORKSPACE = 0
class Config:
    __slots__ = ("flags", "limit", "profiles", "profiling_verbosity") + (() if {pools} else ("max_workspace_size",))
    def __init__(self): self.flags, self.profiles = [], []
    def set_flag(self, flag): self.flags.append(flag)
    def add_optimization_profile(self, profile): self.profiles.append(profile.shapes); return 0
    if {pools}:
        def set_memory_pool_limit(self, pool, size): assert pool == MemoryPoolType.WORKSPACE; self.limit = size
class OptimizationProfile:
    def set_shape(self, name, least, best, most): self.shapes = [name, least, best, most]
class Network: model = None
class Builder:
    def __init__(self, logger): assert isinstance(logger, ILogger); self.logger = logger
    def create_network(self, flags=0): assert flags == (1 if {major} < 11 else 0); return Network()
    def create_builder_config(self): return Config()
    def create_optimization_profile(self): return OptimizationProfile()
    def build_serialized_network(self, network, config):
        assert config.profiling_verbosity == ProfilingVerbosity.DETAILED
        assert (config.limit if {pools} else config.max_workspace_size) > 0
        if b"too large" in network.model:
            self.logger.log(ILogger.Severity.ERROR, "Cuda Runtime (out of memory)")
            return None
        return json.dumps([config.flags, config.profiles]).encode()
class OnnxParser:
    def __init__(self, network, logger): self.network, self.num_errors = network, 0
    def parse(self, model):
        self.network.model = bytes(model)
        self.num_errors = int(b"GridSample" in self.network.model)
        return self.num_errors == 0
    def get_error(self, number):
        class Error:
            def desc(self): return "No importer registered for op: GridSample"
        return Error()
"""
GENERATIONS = {
    "8.2.1": {"bindings": True, "names": False}, "8.5.2": {"bindings": True, "names": True},
    "8.6.1": {"bindings": True, "names": True}, "10.3.0": {"bindings": False, "names": True},
    "10.16.1": {"bindings": False, "names": True}, "11.1.0": {"bindings": False, "names": True},
}  # fmt: skip


def fake(version: str, *, half: bool = False, broken: bool = False) -> str:
    settings = {
        "version": version, **GENERATIONS[version], "half": half, "broken": broken, "major": int(version.split(".", maxsplit=1)[0]),
        "pools": version >= "8.4" or version.startswith("1"),
    }  # fmt: skip
    text = TENSORRT
    for name, value in settings.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def compiled(folder: Path, source: str) -> Path:
    """A shared library of some C."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make a stand-in for CUDA with")
    (folder / "library.c").write_text(source)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(folder / "library.so"), str(folder / "library.c")], check=True
    )
    return folder / "library.so"
