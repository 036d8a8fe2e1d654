"""Conversations with tools on their way from verl's agent loop to the reward function.

verl decodes all turns of a rollout into one text, in which the results of tools look like text of the policy. The loop
and the reward manager of this module pass the messages on. verl's setting `default_agent_loop = "tool_agent"` uses
them.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.experimental.reward_loop.reward_manager.dapo import DAPORewardManager

from fapo.data.trajectory import opens_thinking, reaches_limit


class RecordedToolAgentLoop(ToolAgentLoop):
    """verl's loop with tools, which keeps the messages of the rollout for the reward function."""

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """Write one rollout, and return verl's record of it, with the messages after the prompt as JSON."""
        self._messages: list[dict[str, Any]] = []
        output = await super().run(*args, **kwargs)
        turns = self._messages[len(kwargs["raw_prompt"]) :]
        output.extra_fields["trajectory"] = json.dumps([self._without_special_tokens(turn) for turn in turns])
        return output

    async def _handle_generating_state(self, agent_data: Any, *args: Any, **kwargs: Any) -> Any:
        before = len(agent_data.messages)
        state = await super()._handle_generating_state(agent_data, *args, **kwargs)
        self._messages = [*agent_data.messages]
        if len(self._messages) == before:  # a limit has ended the rollout, so verl does not add its last turn
            num_over = max(0, len(agent_data.response_mask) - self.response_length)
            ids = agent_data.response_ids[: len(agent_data.response_ids) - num_over]
            self._messages.append({"role": "assistant", "content": self.tokenizer.decode(ids)})
        return state

    def _without_special_tokens(self, turn: dict[str, Any]) -> dict[str, Any]:
        """Return a message without the end token, which verl's parsers of tool calls leave in the text."""
        content = turn["content"]
        if turn["role"] == "assistant":
            for token in self.tokenizer.all_special_tokens:
                content = content.replace(token, "")
        elif not isinstance(content, str):
            content = [{"type": block["type"], "text": block.get("text")} for block in content]  # no images
        return turn | {"content": content}


class ConversationRewardManager(DAPORewardManager):
    """verl's reward manager with overlong shaping, which passes on what the reward function must know of a rollout."""

    async def run_single(self, data: Any) -> Any:
        """Return the score of a rollout.

        `extra_info` of the reward function has the keys thinking (whether the prompt opens a thinking block), truncated
        and, for a rollout with tools, trajectory (its messages).
        """
        data = data[-1:]
        prompt, columns = self.tokenizer.decode(data.batch["prompts"][0]), data.non_tensor_batch
        num_tokens = int(data.batch["attention_mask"][0, data.batch["prompts"].shape[-1] :].sum())
        found = {"thinking": opens_thinking(prompt), "truncated": reaches_limit(num_tokens, self.max_resp_len or 0)}
        if "trajectory" in (fields := columns.get("tool_extra_fields", [{}])[0]):
            found["trajectory"] = json.loads(fields["trajectory"])
        extra_info = np.empty(1, dtype=object)
        extra_info[0] = {**columns["extra_info"][0], **found}
        columns["extra_info"] = extra_info
        return await super().run_single(data)
