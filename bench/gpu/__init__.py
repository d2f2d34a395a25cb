"""Stock SGLang and ours, side by side on one GPU. `python -m bench.gpu.compare --help` is the one command."""
