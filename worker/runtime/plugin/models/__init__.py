"""For SGLANG_EXTERNAL_MODEL_PACKAGE=worker.runtime.plugin.models."""
