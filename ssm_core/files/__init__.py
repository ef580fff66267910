"""Weights on disk: our files, other codes' state dicts, and the directories of Hugging Face."""
