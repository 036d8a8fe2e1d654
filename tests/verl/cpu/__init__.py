"""verl without an accelerator, for tests: loaded by verl itself through VERL_USE_EXTERNAL_MODULES.

verl stays unmodified. `platform` tells it about the device, `rollout` samples with transformers instead of a server of
vLLM's, and `process_group` (actor_rollout_ref.model.external_lib) opens the process group. One private name is used:
the table of rollout classes in `verl.workers.rollout.base`.
"""
