"""ZeRO: the parameters of a block, their gradients and the optimizer's states divided over a stage's replicas (FSDP2).

Every block is a group of its own, because a pipeline's forward pass may end in the middle of the model. Gradients are
summed, never averaged: the engine divides by the global count. Stage 1 keeps parameters and gradients whole through a
step and divides the gradients once; stage 2 divides them after every backward pass; stage 3 also gathers the parameters
anew for every pass (Rajbhandari et al. 2020).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from heliostat.placement.strategy import Zero
from heliostat.train.apply.tensor import pass_hooks


class Shards:
    """The sharded modules of one rank."""

    def __init__(self, zero: Zero, *, separate: bool) -> None:
        self._zero = zero
        self._separate = separate
        self._modules: list[FSDPModule] = []

    @property
    def needs_every_round(self) -> bool:
        """Whether every pass is a collective, so that a rank without samples must take part."""
        return bool(self._modules) and self._zero >= 2

    def add(
        self,
        modules: Sequence[nn.Module],
        group: ProcessGroup,
        device: torch.device,
        keep: Iterable[nn.Parameter],
        dtype: torch.dtype,
    ) -> None:
        """Divide the parameters of one block over `group`.

        Args:
            modules: of the block.
            group: of the replicas.
            device: of this rank.
            keep: parameters that stay whole.
            dtype: in which the block computes.
        """
        mesh = DeviceMesh.from_group(group, device.type)
        kept = set(keep)
        # on a CPU autocast leaves norms alone, which take no parameters of another type than their input
        gathered = dtype if dtype != torch.float32 and device.type != "cpu" else None
        policy = MixedPrecisionPolicy(
            param_dtype=gathered,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
        for module in modules:
            if all(parameter in kept for parameter in module.parameters()):
                continue
            sharded = fully_shard(
                module, mesh=mesh, reshard_after_forward=self._zero == 3, mp_policy=policy, ignored_params=kept
            )
            pass_hooks(module)
            # gloo has no sum with a factor
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
            self._modules.append(sharded)

    def before_backward(self, *, is_last: bool) -> None:
        """Say what the next backward pass leaves behind."""
        ends = is_last and not self._separate
        for module in self._modules:
            module.set_is_last_backward(ends)
            module.set_requires_gradient_sync(self._zero >= 2 or ends)
            module.set_reshard_after_backward(self._zero == 3 or ends)

    def rest(self) -> None:
        """Divide the parameters that forward passes without backward ones have left whole."""
        for module in self._modules:
            module.reshard()

    def finish(self) -> None:
        """After the last pass: where gradients of parameters are made after those of inputs, divide them now."""
        if not self._separate:
            return
        for module in self._modules:
            module.set_is_last_backward(True)
            module.set_requires_gradient_sync(True)
            module.set_reshard_after_backward(True)
            # as torch's own pipeline schedules do at the end of a step
            state = fully_shard.state(module)  # type: ignore[attr-defined]
            for one in state._state_ctx.all_states:  # noqa: SLF001
                if one._fsdp_param_group:  # noqa: SLF001
                    one._fsdp_param_group.post_backward()  # noqa: SLF001
            state._root_post_backward_final_callback()  # noqa: SLF001
