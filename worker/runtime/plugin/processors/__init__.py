"""For SGLANG_EXTERNAL_MM_PROCESSOR_PACKAGE=worker.runtime.plugin.processors."""
