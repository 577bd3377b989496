"""Which variables of an environment a process reads once: at its start, or when a module of `preload` is imported.

A process that runs already cannot be given them: an engine that wishes one starts in a pod of its own. Pure. Must not
import anything of the project: the agent and the operator read it.
"""

import sys
from collections.abc import Iterable

# Python's interpreter; the C library and its loader; what Python makes of the locale.
_PREFIXES = ("PYTHON", "LD_", "MALLOC_", "LC_")
# Libraries for numbers read how many threads they may start, when they are loaded: a pool's `preload` may have done so.
_LIBRARIES = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "NUMEXPR_")
# IPython looks at VIRTUAL_ENV when its shell is made.
_NAMES = frozenset({"LANG", "LANGUAGE", "GLIBC_TUNABLES", "GCONV_PATH", "TZDIR", "VIRTUAL_ENV"})
# A kernel that runs reads its zone's file again, wherever it is: one that never ends would hold it for good.
ZONE = "TZ"

# What modules read at their import, with what they import themselves, by the first part of their names. Each reads its
# own name in capitals besides, such as POLARS_. From the documentation of each.
_MATPLOTLIB = ("MPL", "MATPLOTLIBRC")
_ARROW = ("ARROW_", "PYARROW_")
_CUDA = ("CUDA_", "NVIDIA_", "CUBLAS_", "CUDNN_", "NCCL_")
_TORCH = ("TORCH", "PYTORCH_", "HIP_", "ROCR_", *_CUDA)
_JAX = ("JAX_", "XLA_", "LIBTPU_", "TPU_", *_CUDA)
_TENSORFLOW = ("TF_", "TENSORFLOW_", "KERAS_", "XLA_", "PROTOCOL_BUFFERS_", "GRPC_", *_CUDA)
_KERAS = ("KERAS_", *_TENSORFLOW, *_TORCH, *_JAX)
_HUB = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_")
_TOKENIZERS = ("TOKENIZERS_", "RAYON_", *_HUB)
_DATASETS = ("DATASETS_", "USE_", *_HUB, *_ARROW, *_TORCH, *_TENSORFLOW, *_JAX)
_TRANSFORMERS = ("TRANSFORMERS_", "PYTORCH_", "SAFETENSORS_", *_TOKENIZERS, *_DATASETS)
_JOBLIB = ("JOBLIB_", "LOKY_")
_GEO = ("PROJ_", "GDAL_", "OGR_", "CPL_", "USE_", *_ARROW)
_SPARK = ("SPARK_", "JAVA_", "HADOOP_")
_MODULES: dict[str, tuple[str, ...]] = {
    "cupy": _CUDA, "cv2": ("OPENCV_",), "dask": (), "datasets": _DATASETS, "diffusers": _TRANSFORMERS,
    "distributed": ("DASK_",), "duckdb": (), "evaluate": _DATASETS, "fiona": _GEO, "geopandas": _GEO,
    "huggingface_hub": _HUB, "jax": _JAX, "joblib": _JOBLIB, "keras": _KERAS, "lightgbm": _JOBLIB,
    "matplotlib": _MATPLOTLIB, "nltk": (), "numba": _CUDA, "numpy": ("NPY_",), "pandas": _ARROW, "peft": _TRANSFORMERS,
    "polars": ("RAYON_", *_ARROW), "pyarrow": _ARROW, "pyproj": _GEO, "pyspark": _SPARK, "rasterio": _GEO,
    "requests": (), "scipy": ("NPY_",), "seaborn": (*_MATPLOTLIB, *_ARROW), "shapely": _GEO,
    "sklearn": ("SCIPY_", *_JOBLIB), "sqlalchemy": ("DISABLE_SQLALCHEMY_",), "tensorflow": _TENSORFLOW,
    "tokenizers": _TOKENIZERS, "torch": _TORCH, "torchvision": _TORCH, "transformers": _TRANSFORMERS,
    "xgboost": _JOBLIB, "yaml": (),
}  # fmt: skip
# A module that is not known may import each of them.
_ALL = tuple(sorted({f"{name.upper()}_" for name in _MODULES} | {one for found in _MODULES.values() for one in found}))


def read_at_start(name: str, preload: Iterable[str] = (), value: str = "") -> bool:
    """Whether a kernel that has imported `preload` has read the variable, and reads it no more, or not this value."""
    if name == ZONE and is_path(value):
        return True
    if name in _NAMES or name.startswith(_PREFIXES + _LIBRARIES):
        return True
    return any(name.startswith(_at_import(module.partition(".")[0])) for module in preload)


def is_path(zone: str) -> bool:
    """Whether TZ names a file by its path, which may be outside of the database of zones. The C library drops a ":"."""
    name = zone.removeprefix(":")
    return name.startswith(("/", ".")) or ".." in name


def _at_import(module: str) -> tuple[str, ...]:
    """Prefixes of the variables that a module reads at its import."""
    if module in sys.stdlib_module_names:
        return ()
    return (f"{module.upper()}_", *_MODULES.get(module, _ALL))
