"""Start, resume and finish a training run: what the trainers of both methods have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments

from fapo.config.schema import Config, LoraConfig
from fapo.errors import ConfigError
from fapo.inference.pretrained import load_weights
from fapo.training.run_folder import RunFolder, check_engine
from fapo.training.run_lock import disk_full_as_oserror
from fapo.trl.callbacks import graceful_stop
from fapo.trl.checkpoints import last_checkpoint, save_model


@dataclass(frozen=True)
class Run:
    """An open run folder, and the checkpoint from which training continues."""

    folder: RunFolder
    """Run folder of this process."""
    checkpoint: str | None
    """Folder of the last complete checkpoint; None for a new run."""
    finished: bool
    """Whether that checkpoint is the one of the last step."""
    lora: LoraConfig | None = None
    """Settings of the adapter that is trained; None if all weights are."""

    def with_final_weights(self, model: Any) -> Any:
        """Return the model with the weights of the last step if the run is finished, else the model itself.

        The model itself is returned as well if the run trains an adapter, which `train` loads.
        """
        if self.lora or not (self.finished and self.checkpoint):
            return model
        return load_weights(self.checkpoint, model.dtype)

    def train(self, trainer: Any) -> None:
        """Train to the last step, unless the run is finished, and save the model.

        Raises KeyboardInterrupt after Ctrl-C, OSError when the disk is full, and ConfigError if an adapter shall be
        merged into weights that are divided over processes.
        """
        merge = bool(self.lora and self.lora.save == "merged")
        if merge and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
            raise ConfigError(
                'model.lora.save "merged" does not work with weights that are divided over processes; set "adapter"'
            )
        for weights in trainer.model.parameters() if self.lora else ():
            if weights.requires_grad:  # TRL has adapters of 4-bit weights in bfloat16, and peft loads them in float32
                weights.data = weights.data.float()
        with graceful_stop(trainer), disk_full_as_oserror(self.folder.path):
            if not self.finished:  # the trainer would do one more step
                trainer.train(resume_from_checkpoint=self.checkpoint)
            elif self.lora:
                trainer.model.load_adapter(self.checkpoint, "default")
        with disk_full_as_oserror(self.folder.path):
            save_model(trainer, self.folder, merge=merge)


def open_run(config: Config, arguments: TrainingArguments, *, resume: bool, rank: int = 0) -> Run:
    """Open the run folder, lock it, and drop rows that were written after the last checkpoint.

    Args:
        config: Config of the run.
        arguments: Arguments of the trainer. `eval_on_start` is turned off if training continues from a checkpoint.
        resume: Whether an earlier run of this config continues.
        rank: Index of this process among those that train.

    Returns:
        The open run.

    Raises:
        ConfigError: If the folder holds a run and `resume` is not set, if the run in it had another config or engine,
            or if another process is training in it.
    """
    if resume:
        check_engine(config, "trl")
    folder = RunFolder(config, resume=resume, rank=rank, lock=True)
    num_updates, checkpoint = last_checkpoint(folder.checkpoints) if resume else (0, None)
    folder.rewind(num_updates // config.optim.updates_per_batch if checkpoint else -1)
    arguments.eval_on_start = arguments.eval_on_start and not checkpoint
    return Run(folder, checkpoint, num_updates >= arguments.max_steps, config.model.lora)
