"""The kinds of files and folders that are recognized: what each is called and what to do with it."""

from collections.abc import Mapping
from dataclasses import dataclass

_MODEL = "load it in its own framework and export the network to PyTorch (model.state_dict() or torch.export)"
_STATE_DICT = "in a trusted environment, save torch.save(model.state_dict(), PATH)"
_RECORDS = "give records as .npz, .safetensors, .pt, or a CSV next to images"
_AGAIN = "download it again"
_WEIGHTS = "give it as --target.checkpoint if it contains weights, or as --data.public if it contains records"


@dataclass(frozen=True)
class FileKind:
    """A kind of file."""

    name: str
    """Short name to compare with, a key of `KINDS`."""

    description: str
    """Noun phrase with its article, for ``PATH: is {description}``."""

    fix: str
    """Imperative that completes the sentence after a semicolon."""

    is_placeholder: bool = False
    """Whether it is text in place of the wanted file, which a table reader would take for a table."""


KINDS: Mapping[str, FileKind] = {
    entry.name: entry
    for entry in (
        FileKind("empty", "empty (0 bytes)", "copy or download it again"),
        FileKind("git-lfs pointer", "a Git LFS pointer, not the file itself", "run: git lfs pull", True),
        FileKind("git-annex pointer", "a git-annex pointer, not the file itself", "run: git annex get", True),
        FileKind("DVC pointer", "a DVC pointer, not the file itself", "run: dvc pull", True),
        FileKind("HTML", "an HTML page (a failed download), not the file itself", _AGAIN, True),
        FileKind("XML", "an XML document, such as a storage server's error message, not the file itself", _AGAIN, True),
        FileKind("error page", "a server's error message, not the file itself", _AGAIN, True),
        FileKind("HDF5", "an HDF5 file (Keras, MATLAB 7.3 or h5py)", f"{_MODEL}; arrays in it: save them as .npz"),
        FileKind("Keras", "a Keras model (.keras)", _MODEL),
        FileKind("ONNX", "an ONNX model", "convert it to PyTorch (onnx2torch), then torch.export.save it"),
        FileKind("TensorFlow Lite", "a TensorFlow Lite model", _MODEL),
        FileKind("SavedModel", "the folder of a TensorFlow SavedModel", _MODEL),
        FileKind("TensorFlow checkpoint", "the folder of a TensorFlow checkpoint", _MODEL),
        FileKind("GGUF", "a GGUF or GGML language model", "give an image classifier"),
        FileKind("joblib", "a joblib pickle, which runs code when it is read", _MODEL),
        FileKind("scikit-learn model", "a pickled scikit-learn or boosting model, which runs code when read",
                 "save it as .skops (skops.io.dump) or LightGBM text (booster.save_model), return it from a function "
                 "(--target.architecture package.module:function), or evaluate its scores with python -m "
                 "mia_lightning.evaluate"),
        FileKind("boosting model", "a model of XGBoost, CatBoost or LightGBM",
                 "return it fitted from a function (--target.architecture package.module:function), or save LightGBM's "
                 "as text (booster.save_model)"),
        FileKind("pandas pickle", "a pickled pandas object, which runs code when it is read",
                 "save it with to_csv or to_parquet"),
        FileKind("pickle", "a pickle that torch.save did not write", "save it again with torch.save(data, PATH)"),
        FileKind("torch pickle", "a pickle of torch objects that torch.save did not write",
                 "save it again with torch.save(data, PATH)"),
        FileKind("torch", "a torch.save file", _WEIGHTS),
        FileKind("torch, old form", "a torch.save file in the form before torch 1.6", _WEIGHTS),
        FileKind("torch, cut short", "a torch.save file that is cut short or damaged", "copy or save it again"),
        FileKind("TorchScript", "a TorchScript program", _STATE_DICT),
        FileKind("torch.export", "a torch.export program", "give it as --target.checkpoint"),
        FileKind("TorchServe", "a TorchServe model archive", "unpack it and give the weights in it"),
        FileKind("safetensors", "a safetensors file", _WEIGHTS),
        FileKind("npz", "an .npz archive of arrays", "give it as --data.public or --data.private"),
        FileKind("npy", "a single NumPy array (.npy)",
                 "save images, labels and membership together: np.savez(PATH, images=..., labels=..., membership=...)"),
        FileKind("Parquet", "a Parquet table", "give it to python -m mia_lightning.evaluate if it contains scores"),
        FileKind("Arrow", "an Arrow or Feather table", "save it as Parquet or CSV"),
        FileKind("SQLite", "an SQLite database", _RECORDS),
        FileKind("MATLAB", "a MATLAB file", "save its arrays as .npz"),
        FileKind("R data", "an R data file", "save its arrays as .npz or its table as CSV"),
        FileKind("DICOM", "a DICOM image", "convert the images to PNG next to a CSV"),
        FileKind("idx", "an idx file, as MNIST is distributed", "use --data.public torchvision:MNIST, or save .npz"),
        FileKind("image", "a single image", "give the folder of images with a CSV in it"),
        FileKind("PDF", "a PDF or PostScript document", _RECORDS),
        FileKind("program", "an executable program", "give the file it came with"),
        FileKind("Python source", "Python source code",
                 "give weights as --target.checkpoint and the class as --target.architecture"),
        FileKind("Python package", "a Python package (wheel)", "give the file it came with"),
        FileKind("Office document", "an Office document", "save the table as CSV"),
        FileKind("JSON", "a JSON file", "give the file that holds the tensors"),
        FileKind("JSON lines", "a file of JSON lines", "save it as CSV or Parquet (pandas.read_json reads it)"),
        FileKind("TFRecord", "a TFRecord file", _RECORDS),
        FileKind("FFCV", "an FFCV data set", _RECORDS),
        FileKind("ARFF", "an ARFF table", "save it as CSV or Parquet (scipy.io.arff reads it)"),
        FileKind("LIBSVM", "a LIBSVM table", "save it as CSV or Parquet (sklearn.datasets reads it)"),
        FileKind("LMDB", "the folder of an LMDB database", _RECORDS),
        FileKind("7z", "a 7z archive", "unpack it"),
        FileKind("rar", "a RAR archive", "unpack it"),
        FileKind("zstd", "a zstd-compressed file", "decompress it"),
        FileKind("lz4", "an lz4-compressed file", "decompress it"),
        FileKind("zlib", "a zlib-compressed file", "decompress it"),
        FileKind("gzip", "a gzip-compressed file", "decompress it"),
        FileKind("xz", "an xz-compressed file", "decompress it"),
        FileKind("bzip2", "a bzip2-compressed file", "decompress it"),
        FileKind("tar", "a tar archive", "unpack it"),
        FileKind("zip", "a zip archive", "unpack it"),
        FileKind("zip, damaged", "a zip archive that is cut short or damaged", "copy or download it again"),
        FileKind("save_pretrained", "the folder of a Hugging Face model (save_pretrained)",
                 "give its model.safetensors (or pytorch_model.bin) as --target.checkpoint, and the class by "
                 "--target.architecture"),
        FileKind("Hugging Face data set", "the folder of a Hugging Face data set (save_to_disk)",
                 "export images, labels and membership as .npz"),
        FileKind("Lightning run", "the folder of a Lightning run", "give one .ckpt file from its checkpoints folder"),
        FileKind("sharded checkpoint", "the folder of a distributed torch checkpoint",
                 "merge it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt"),
        FileKind("Ray checkpoint", "the folder of a Ray checkpoint", "give the weights file in it"),
        FileKind("unzipped torch file", "an unzipped torch.save file", "copy the original file"),
        FileKind("checkpoint folder", "a folder with checkpoints", "give one of the files in it"),
        FileKind("folder", "a folder", "give the path of a file inside it"),
    )
}  # fmt: skip
"""Name to kind."""
