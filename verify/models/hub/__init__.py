"""STATEMENT. Models by hub name: the commit, its small files, and of the weights only what is needed.

Wrong here = a claim about another model. huggingface_hub is imported when a hub name is used, not before;
its environment variables, its cache and its offline mode are honoured.

names.py       what a hub name is
snapshot.py    from a name to a commit, its config and tokenizer files
weights.py     from a commit to a checkpoint: whole files that are cached, else single tensors, else .bin
remote.py      a remote safetensors file: its header, then the tensors that are asked for
parts.py       the cache of single tensors, each with its SHA-256
ranges.py      bytes of a remote file over HTTP, and what is refused
errors.py      one line for whatever goes wrong
bar.py         a progress bar on a terminal
"""

from verify.models.hub.names import at_revision, split_hub_name
from verify.models.hub.remote import parts_folder
from verify.models.hub.snapshot import Snapshot, find_snapshot
from verify.models.hub.weights import fetch_whole, open_snapshot

__all__ = [
    "Snapshot",
    "at_revision",
    "fetch_whole",
    "find_snapshot",
    "open_snapshot",
    "parts_folder",
    "split_hub_name",
]
