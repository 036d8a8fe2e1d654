"""A gloo process group, opened before verl asks for one of "cpu:gloo,cpu:gloo", which torch does not know."""

from __future__ import annotations

import os

import torch.distributed

if os.environ.get("WG_BACKEND") == "ray" and "RANK" in os.environ and not torch.distributed.is_initialized():
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=size)
