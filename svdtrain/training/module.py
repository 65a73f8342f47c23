"""The training step, the same for every family: encode, corrupt, predict, compare."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import distributed

from svdtrain.diffusion.objective import mean_error_per_clip
from svdtrain.foundation.errors import ModelError, NumericError
from svdtrain.foundation.seeding import Draws
from svdtrain.training.encoding_cache import EncodingCache
from svdtrain.training.optimization import OptimizerSettings, apply_settings, build_optimizer, half_of_weight

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from svdtrain.families.protocol import ModelFamily
    from svdtrain.types import ClipBatch, Conditions

LEVEL_EDGES = (0.1, 0.316, 1.0, 3.16, 10.0, 31.6)
"""Upper edges of the noise levels that losses are reported by."""


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
        self.encoded_ahead = False
        """Every batch comes with its encodings."""
        self.seconds: dict[str, float] = {"encode": 0.0, "denoise": 0.0, "backward": 0.0}
        self.losses: list[tuple[float, float]] = []
        """(sigma, loss) of the clips since the last log."""
        self.last_loss = 0.0
        self.gradient_norm = 0.0
        self.strict_loading = True
        self.lone_frame = False
        for name, parameter in self.trained_parameters().items():
            if half_of_weight(name, halves) == "temporal":
                parameter.register_hook(lambda gradient: gradient * 0 if self.lone_frame else gradient)

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
        self.lone_frame = latents_BTCHW.shape[1] == 1
        with self.timed("denoise"):
            prediction_BTCHW = self.family.denoise(noisy, conditions)
        loss_B = mean_error_per_clip(prediction_BTCHW, noisy.target_BTCHW) * noisy.weight_B
        self.record(loss_B, noisy.sigma_B, batch.keys_B)
        return loss_B.mean()

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
        """Keep each clip's loss with its noise level, of all ranks; one that is not finite ends the run before the step."""
        pairs = torch.stack([sigma_B.float(), loss_B.detach().float()], dim=1)
        everywhere: list[list[float]] = of_all_ranks(pairs).tolist()
        if not all(math.isfinite(loss) for _, loss in everywhere):
            rank, key, sigma, loss = self._first_bad(pairs, keys_B)
            where = f", rank {rank}," if distributed.is_initialized() else ","
            raise NumericError(
                f"the loss of clip '{key}' at step {self.global_step}{where} sigma {sigma:.3g}, is {loss}",
                "lower optimizer.learning_rate, or look at that clip",
            )
        self.losses.extend((sigma, loss) for sigma, loss in everywhere)
        self.last_loss = sum(loss for _, loss in everywhere) / len(everywhere)

    def _first_bad(self, pairs: Tensor, keys_B: Sequence[str]) -> tuple[int, str, float, float]:
        """(rank, clip, sigma, loss) of the first loss that is not finite: the same on all ranks, so that none waits."""
        bad = [(key, *pair) for key, pair in zip(keys_B, pairs.tolist(), strict=True) if not math.isfinite(pair[1])]
        found: list[Any] = [bad]
        if distributed.is_initialized():
            found = [None] * distributed.get_world_size()
            distributed.all_gather_object(found, bad)
        return next((rank, *rows[0]) for rank, rows in enumerate(found) if rows)

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

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        """Stop before a gradient that is not finite reaches the weights."""
        norms = [p.grad.norm() for p in self.denoiser.parameters() if p.grad is not None]
        self.gradient_norm = float(torch.stack(norms).norm()) if norms else 0.0
        scaled = self.trainer.precision == "16-mixed"  # its scaler skips such steps by itself
        if not math.isfinite(self.gradient_norm) and not scaled:
            raise NumericError(
                f"the gradient at step {self.global_step} is {self.gradient_norm}", "lower optimizer.learning_rate"
            )

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW over what requires gradients, one learning rate per half."""
        return build_optimizer(self.denoiser, self.halves, self.optimizer_settings)

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Encoders to the device too; Lightning moves only the denoiser."""
        trained = {n: p.data for n, p in self.denoiser.named_parameters() if p.requires_grad}
        self.family.to(self.trainer.strategy.root_device, self.denoiser_dtype)
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


def of_all_ranks(rows_ND: Tensor) -> Tensor:
    """[N, D] of this rank to [world * N, D] of all, by rank."""
    if not distributed.is_initialized():
        return rows_ND
    parts = [torch.empty_like(rows_ND) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows_ND)
    return torch.cat(parts)
