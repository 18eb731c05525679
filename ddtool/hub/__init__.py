"""The one boundary with huggingface_hub."""
