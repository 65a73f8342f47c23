"""The training step, the same for every family: encode, corrupt, predict, compare."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh

from svdtrain.acceleration.flat import FlatParameters
from svdtrain.acceleration.sharding import ShardedBase
from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.foundation.errors import ModelError, NumericError
from svdtrain.foundation.seeding import Draws
from svdtrain.training.encoding_cache import EncodingCache
from svdtrain.training.optimization import (
    OptimizerSettings,
    apply_settings,
    build_optimizer,
    group_weights,
    half_of_weight,
)
from svdtrain.training.ranks import of_all_ranks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.utils.hooks import RemovableHandle

    from svdtrain.families.protocol import ModelFamily
    from svdtrain.types import ClipBatch, Conditions

LEVEL_EDGES = (0.1, 0.316, 1.0, 3.16, 10.0, 31.6)
"""Upper edges of the noise levels that losses are reported by."""


class ClipLoss(NamedTuple):
    """What a step made of a clip; of another rank's, the key is empty."""

    rank: int
    key: str
    sigma: float
    loss: float


class FineTuning(pl.LightningModule):
    """A family's denoiser under training; whatever of it requires gradients is trained and saved.

    Of single pictures the temporal half learns nothing: that nothing moves is not what they show.
    """

    def __init__(
        self,
        family: ModelFamily,
        optimizer: OptimizerSettings,
        halves: dict[str, str],
        *,
        seed: int,
        clips_per_step: int,
        condition_dropout: float,
        image_dropout: float,
        cache: EncodingCache | None,
        denoiser_dtype: torch.dtype,
        shard_base: bool = False,
    ) -> None:
        super().__init__()
        self.family = family
        self.denoiser: nn.Module = family.denoiser
        self.optimizer_settings = optimizer
        self.halves = halves
        self.seed = seed
        self.clips_per_step = clips_per_step
        self.condition_dropout, self.image_dropout = condition_dropout, image_dropout
        self.cache = cache
        self.denoiser_dtype = denoiser_dtype
        self.shard_base = shard_base
        self.sharded: ShardedBase | None = None
        """Every pass through the denoiser is then one of all ranks together."""
        self.encoded_ahead = False
        """Every batch comes with its encodings."""
        self.seconds: dict[str, float] = {"encode": 0.0, "denoise": 0.0, "backward": 0.0}
        self.losses: list[tuple[float, float]] = []
        """(sigma, loss) of the clips since the last log."""
        self.last_clips: list[ClipLoss] = []
        """Of the last optimizer step, of all ranks."""
        self.last_loss = 0.0
        self.gradient_norm = 0.0
        self._unread: list[tuple[Tensor, Sequence[str]]] = []
        """Of each batch of the optimizer step in hand: [world * B, 2] of sigma and loss, by rank; this rank's clips."""
        self.strict_loading = True
        self._muted: list[RemovableHandle] = []
        """On what a lone frame teaches nothing, while one is in hand."""

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """The mean loss of a batch."""
        draws = self.draws(batch)
        latents_BTCHW, conditions = self.encode(batch, draws)
        noise_BTCHW = draws.normal("noise", tuple(latents_BTCHW.shape[1:]))
        if offset := self.family.objective.offset_noise:
            noise_BTCHW = noise_BTCHW + offset * draws.normal("offset noise", (1, latents_BTCHW.shape[2], 1, 1))
        sigma_B = self.family.objective.levels(draws.stratified("noise level"))
        noisy = self.family.objective.corrupt(latents_BTCHW, noise_BTCHW, sigma_B)
        conditions = conditions.dropped(draws.uniform("condition dropout") < self.condition_dropout)
        if self.image_dropout:
            conditions = conditions.without_image(draws.uniform("image dropout") < self.image_dropout)
        self._mute_motion(latents_BTCHW.shape[1] == 1)
        with self.timed("denoise"):
            prediction_BTCHW = self.family.denoise(noisy, conditions)
        loss_B = mean_error_per_clip(prediction_BTCHW, noisy.target_BTCHW) * noisy.weight_B
        self.record(loss_B, noisy.sigma_B, batch.keys_B)
        return loss_B.mean()

    def _mute_motion(self, lone_frame: bool) -> None:
        while self._muted:
            self._muted.pop().remove()
        if lone_frame:
            trained = self.trained_parameters().items()
            motion = [p for name, p in trained if half_of_weight(name, self.halves) == "temporal"]
            self._muted = [parameter.register_hook(torch.zeros_like) for parameter in motion]

    def draws(self, batch: ClipBatch) -> Draws:
        """The batch's randomness: by run seed and global position, stratified over the optimizer step."""
        strata = tuple((p % self.clips_per_step, self.clips_per_step) for p in batch.positions_B)
        return Draws(self.seed, batch.positions_B, strata, self.device)

    def encode(self, batch: ClipBatch, draws: Draws) -> tuple[Tensor, Conditions]:
        """Latents sampled from their posterior, and conditions; neither needs gradients."""
        with self.timed("encode"), torch.no_grad():
            encoded = batch.encoded.to(self.device) if batch.encoded else None
            if encoded is None and self.cache:
                encoded = self.cache.get(batch.keys_B, self.device)
            if encoded is None:
                encoded = self.family.encode_clips(batch)
                if self.cache:
                    self.cache.put(batch.keys_B, encoded)
            conditions = self.family.encode_conditions(batch, encoded, draws)
            posterior = self.family.posterior(encoded)
            noise_BTCHW = draws.normal("posterior", tuple(posterior.mean_BTCHW.shape[1:]))
            return posterior.sample(noise_BTCHW), conditions

    def record(self, loss_B: Tensor, sigma_B: Tensor, keys_B: Sequence[str]) -> None:
        """Keep each clip's loss with its noise level, of all ranks, where it is: the device is not waited for."""
        self._unread.append((of_all_ranks(torch.stack([sigma_B.float(), loss_B.detach().float()], dim=1)), keys_B))

    def read(self, gradient_norm: Tensor) -> NumericError | None:
        """Fetch the optimizer step's losses, and the gradient's norm: the one time that it waits for the device.

        Returns what is wrong with a loss that is not finite, on all ranks alike.
        """
        rows = [pairs.flatten() for pairs, _ in self._unread]
        *numbers, self.gradient_norm = torch.cat([*rows, gradient_norm.float()[None]]).tolist()
        in_turn = iter(numbers)
        own = distributed.get_rank() if distributed.is_initialized() else 0
        self.last_clips = []
        for pairs, keys in self._unread:
            for row in range(len(pairs)):
                rank, place = divmod(row, len(keys))
                self.last_clips.append(ClipLoss(rank, keys[place] if rank == own else "", next(in_turn), next(in_turn)))
        self._unread.clear()
        if any(not math.isfinite(clip.loss) for clip in self.last_clips):
            bad = self._first_bad(own)
            where = f", rank {bad.rank}," if distributed.is_initialized() else ","
            return NumericError(
                f"the loss of clip '{bad.key}' at step {self.global_step}{where} sigma {bad.sigma:.3g}, is {bad.loss}",
                "lower optimizer.learning_rate, or look at that clip; trainer.on_nonfinite=skip leaves such steps out",
            )
        self.losses.extend((clip.sigma, clip.loss) for clip in self.last_clips)
        self.last_loss = sum(clip.loss for clip in self.last_clips) / len(self.last_clips)
        return None

    def _first_bad(self, own: int) -> ClipLoss:
        """The first loss that is not finite, with its clip's name, which only its rank knows: asked of all at once."""
        bad = [clip for clip in self.last_clips if not math.isfinite(clip.loss)]
        mine = [clip for clip in bad if clip.rank == own]
        found: list[Any] = [mine]
        if distributed.is_initialized():
            found = [None] * distributed.get_world_size()
            distributed.all_gather_object(found, mine)
        return next(clips[0] for clips in found if clips)

    def losses_by_level(self) -> dict[str, float]:
        """Mean loss and mean per noise level since the last call, with each level's share of clips: exact parts of the mean."""
        if not self.losses:
            return {}
        rows = {"loss": sum(loss for _, loss in self.losses) / len(self.losses)}
        edges = (0.0, *LEVEL_EDGES, math.inf)
        for low, high in zip(edges, edges[1:], strict=False):
            within = [loss for sigma, loss in self.losses if low <= sigma < high or sigma == high == math.inf]
            if within:
                rows[f"loss_sigma_below_{high:g}"] = sum(within) / len(within)
                rows[f"share_sigma_below_{high:g}"] = len(within) / len(self.losses)
        self.losses.clear()
        return rows

    def backward(self, loss: Tensor) -> None:
        """Lightning's own backward, timed."""
        with self.timed("backward"):
            loss.backward()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW over what requires gradients, one learning rate per half, all of it on the device."""
        self.flat = FlatParameters(group_weights(self.denoiser, self.halves, self.optimizer_settings))
        scaled = self.denoiser_dtype == torch.float16
        return build_optimizer(self.flat.groups, self.optimizer_settings, fused=not scaled)

    def optimizer_zero_grad(self, *_: Any) -> None:  # noqa: ANN401
        """In place: every gradient stays a view of the one."""
        self.flat.zero_gradients()

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Encoders to the device too; Lightning moves only the denoiser."""
        trained = {n: p.data for n, p in self.denoiser.named_parameters() if p.requires_grad}
        device = self.trainer.strategy.root_device
        if self.shard_base:
            nn.Module.to(self.denoiser, dtype=self.denoiser_dtype)
            ranks = init_device_mesh(
                device.type, (self.trainer.num_nodes, self.trainer.num_devices), mesh_dim_names=("machine", "device")
            )
            self.sharded = ShardedBase(self.denoiser, self.family.spec.repeated_blocks, ranks["device"])
        self.family.to(device, self.denoiser_dtype)
        for name, parameter in self.denoiser.named_parameters():
            if name in trained:  # what is trained stays fp32 over a base of any precision
                parameter.data = trained[name].to(parameter.device, torch.float32)

    def on_train_start(self) -> None:
        """The callbacks have encoded and sampled what they wanted, and a checkpoint is restored."""
        scheduler: Any = self.lr_schedulers()
        apply_settings(scheduler.optimizer, scheduler, self.optimizer_settings)
        if self.encoded_ahead:
            self.family.rest()

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:  # noqa: ARG002
        """Clips stay where they are until they are encoded: most come from the cache."""
        return batch

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.denoiser.named_parameters() if p.requires_grad}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # noqa: ANN401, ARG002
        """Trained weights only; the frozen base is named by its fingerprint."""
        return {name: p.detach() for name, p in self.trained_parameters().items()}

    def load_state_dict(self, state_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        """Exactly the trained weights, each with its shape; anything else is a ModelError."""
        live = self.trained_parameters()
        odd = sorted(set(live) ^ set(state_dict))
        odd += [name for name in live if name in state_dict and live[name].shape != state_dict[name].shape]
        if odd:
            raise ModelError(
                f"the checkpoint differs in {len(odd)} weights, first '{odd[0]}'", "resume with the same settings"
            )
        with torch.no_grad():
            for name, parameter in live.items():
                parameter.copy_(state_dict[name])

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count wall seconds of a part of the step (on a GPU: of its launch)."""
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start
