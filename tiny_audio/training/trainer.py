"""The Trainer of transformers, with batches by seconds, whole checkpoints, WER, and a resume that changes nothing."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerControl

from tiny_audio.console import warn
from tiny_audio.data.streaming import mixed_seed
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.loading import load_trained_tensors
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import IGNORED_LABEL
from tiny_audio.model_source import BEST

from .allocation import keep_freed_memory
from .augment import drop_audio_tokens, spec_augment
from .checkpoints import LOG_FILE, STATE_FILE, rotate, set_aside_later, step_of, truncate_log, write_whole
from .compilation import compile_layers
from .ctc import audio_inputs, ctc_loss, frame_lengths, trains_head_alone
from .distillation import distillation_loss, teacher_logits
from .feed import Feed, pins
from .gpus import gpu_table
from .interruption import StopOnTerminate
from .loss import piecewise_loss
from .meter import Meter
from .out_of_memory import PaddedSize, explained, out_of_memory
from .packing import pack, packs
from .processes import gathered, is_first, said_once
from .schema import Settings, TrainingSettings
from .sharding import keep_states_whole, shard, unsharded, whole
from .validation import Validation

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
USED_FILE = "used.json"  # in a checkpoint: clips of each part of a mixture so far
UNLOGGED_FILE = "unlogged.json"  # in a checkpoint between two entries of the log: the losses since the last one
NEVER = 10**12  # steps between two events that only the end of the run brings


@dataclass(frozen=True)
class StepNews:
    """What a process tells the others of its batches of a step."""

    labels: int
    skipped: list[dict[str, Any]]
    parts: list[str]
    stop: bool  # it got SIGTERM

    @classmethod
    def of(cls, batches: list[dict[str, Any]], stop: bool) -> "StepNews":
        """Takes what is no tensor out of the batches."""
        labels = sum(int((batch["labels"] != IGNORED_LABEL).sum()) for batch in batches)
        skipped = [entry for batch in batches for entry in batch.pop("skipped")]
        return cls(labels, skipped, [part for batch in batches for part in batch.pop("parts", ())], stop)


class SpeechTrainer(Trainer):
    """Trains an ASRModel on a feed. One epoch of the Trainer is the whole run; the feed knows the real ones.

    Args:
        model: with the parts to train unfrozen.
        settings: of the run.
        feed: the training batches.
        validation: measured at intervals and at the end; the best model by WER is kept in `best/`.
        folder: of the run.
        callbacks: progress, trackers, and what stops the run.
    """

    model: ASRModel
    control: TrainerControl

    def __init__(
        self,
        model: ASRModel,
        settings: Settings,
        feed: Feed,
        validation: Validation,
        folder: Path,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.feed, self.validation, self.folder = feed, validation, folder
        self.gpus = gpu_table()
        here = self.gpus.here()
        self.meter = Meter(model, settings.training.distillation_weight > 0, here and here[1].tflops * 1e12)
        self._parts: dict[str, list[torch.Tensor]] = {}  # of the loss, a batch each, since the last entry of the log
        self._sizes: list[PaddedSize] = []  # of the batches of the step that runs
        self.head_alone = trains_head_alone(model)
        self.start_step = 0
        self._numbers: Iterator[int] = iter(())  # in the run, of the batches of a step that are still to come
        self._unlogged: dict[str, Any] = {}  # of the process that began the run
        self.settings = settings.training
        model.label_smoothing = self.settings.label_smoothing
        if not self.settings.distillation_weight:  # which compares logits
            model.label_loss = piecewise_loss
        if self.settings.audio_token_dropout:
            drop_audio_tokens(model.projector, self.settings.audio_token_dropout)
        arguments = training_arguments(settings.training, folder, feed.steps)
        arguments.ddp_find_unused_parameters = may_leave_some_unused(model)
        super().__init__(
            model=model, args=arguments, train_dataset=feed.dataset, eval_dataset=validation, callbacks=callbacks
        )
        half = settings.training.dtype != "fp32" or model.language_model.dtype != torch.float32
        if packs(self.settings.packing, self.args.device.type, half, self.settings.cache_features):
            pack(model, self.settings.packing)
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self.model.config.__dict__.pop("use_cache", None)  # the Trainer's, not part of our checkpoints
        for printing in (PrinterCallback, ProgressCallback):
            self.remove_callback(printing)
        self._checkpointed = checkpointed_layers(model) if settings.training.gradient_checkpointing else []
        if self.settings.fsdp:
            self.is_distributed_loading_by_transformers = True  # so that the Trainer wraps the model in nothing else
        if self.settings.compile:
            compile_layers(model)
        self._first_bad_step = torch.full((), -1, dtype=torch.long, device=self.args.device)

    def fit(self, checkpoint: Path | None = None) -> None:
        """Trains from the start, or on from a checkpoint with the batch after the last one it used."""
        if checkpoint is not None:
            self.start_step = step_of(checkpoint)
            if (checkpoint / USED_FILE).is_file():
                self.feed.used.update(json.loads((checkpoint / USED_FILE).read_text()))
            if (checkpoint / UNLOGGED_FILE).is_file():
                self._unlogged = json.loads((checkpoint / UNLOGGED_FILE).read_text())
        if is_first():
            self._tidy(checkpoint)
        if self.args.device.type == "cpu":
            keep_freed_memory()
        with self.meter.parts.attached(), explained(self._out_of_memory):
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def _tidy(self, checkpoint: Path | None) -> None:
        """Takes out of the run's folder what it will write again."""
        if checkpoint is None:
            (self.folder / LOG_FILE).unlink(missing_ok=True)  # of a run that ended before its first checkpoint
            return
        truncate_log(self.folder / LOG_FILE, self.start_step)
        if moved := set_aside_later(self.folder, self.start_step):
            warn(f"Later checkpoints of {self.folder} are kept as {', '.join(path.name for path in moved)}.")

    def _out_of_memory(self) -> str:
        return out_of_memory(self.state.global_step, self._sizes, self.settings, self.folder, self.args.device)

    # ---- data and loss

    def get_train_dataloader(self) -> DataLoader:
        return self.feed.loader(self.start_step * self.feed.accumulation, self.validation.processor)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor]:
        """This process's batches of one step, and the number of label tokens in all of them, of all processes."""
        self.meter.start()
        batches = list(islice(epoch_iterator, num_batches))
        self.meter.arrived()
        for batch in batches:
            seconds = batch.pop("audio_seconds")
            self._sizes.append((len(seconds), len(seconds) * float(seconds.max())))
            self.meter.count(seconds, batch)
        place = self.state.global_step * self.feed.accumulation + self.args.process_index
        self._numbers = iter(range(place, place + self.feed.accumulation, self.args.world_size))
        told = gathered(StepNews.of(batches, any(stop.asked for stop in self._stops())))
        for news in told:
            self.feed.skipped.update(news.skipped)
            self.feed.used.update(news.parts)
        for stop in self._stops():
            stop.agreed = any(news.stop for news in told)
        return batches, torch.tensor(sum(news.labels for news in told), device=device)

    def _stops(self) -> list[StopOnTerminate]:
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, StopOnTerminate)]

    def _prepare_input(self, data: Any) -> Any:
        """To the device, beside what it computes where the batch is in pinned memory."""
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device, non_blocking=pins(self.args.device.type))
        return super()._prepare_input(data)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the label tokens of the whole step, however they are spread over its batches and processes."""
        for layer in self._checkpointed:
            layer.training = True  # frozen layers are in inference mode, in which they would keep their activations
        if "input_features" in inputs and self.settings.time_masks + self.settings.frequency_masks:
            features = spec_augment(inputs["input_features"], inputs["audio_attention_mask"], self.settings)
            inputs = {**inputs, "input_features": features}
        prompts = inputs.pop("teacher", None)
        outputs = model(**(audio_inputs(inputs) if self.head_alone else inputs))
        loss: Any = 0.0
        if not self.head_alone:
            loss = outputs.loss if prompts is None else self._distilled(outputs, prompts)
            loss = loss * outputs.num_label_tokens / num_items_in_batch
        if outputs.auxiliary_loss is not None:
            self._note("auxiliary_loss", outputs.auxiliary_loss)
        if outputs.ctc_scores is not None:
            weight = 1.0 if self.head_alone else self.settings.ctc_loss_weight
            loss = loss + weight * self._ctc_loss(outputs.ctc_scores, inputs) / num_items_in_batch
        loss = loss * self.args.world_size  # of which DDP takes the mean
        return (loss, outputs) if return_outputs else loss

    def _distilled(self, outputs: Any, prompts: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss with a share of its cross-entropy replaced by the divergence from the teacher."""
        weight, auxiliary = self.settings.distillation_weight, 0.0
        with self.accelerator.autocast():
            teacher = teacher_logits(self.model, prompts)
        divergence = distillation_loss(outputs.logits, teacher, self.settings.distillation_temperature)
        self._note("distillation_loss", divergence)
        if outputs.auxiliary_loss is not None:
            auxiliary = self.model.config.router_aux_loss_coef * outputs.auxiliary_loss
        return (1 - weight) * (outputs.loss - auxiliary) + weight * divergence + auxiliary

    def _ctc_loss(self, scores: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """The batch's sum; logged as its mean over the label tokens, like the other losses."""
        loss = ctc_loss(scores, frame_lengths(self.model, inputs), inputs["ctc_labels"])
        self._note("ctc_loss", loss / (inputs["labels"] != IGNORED_LABEL).sum())
        return loss

    def _note(self, name: str, part: torch.Tensor) -> None:
        self._parts.setdefault(name, []).append(part.detach())

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        # What is drawn (dropout, SpecAugment) follows from the batch: not from the process, nor from a resume.
        torch.manual_seed(mixed_seed(self.settings.seed, next(self._numbers)))
        loss = super().training_step(model, inputs, num_items_in_batch)
        # kept on the device: asking for the value at every step would wait for the GPU
        bad = (self._first_bad_step < 0) & ~torch.isfinite(loss)
        self._first_bad_step = torch.where(bad, self.state.global_step + 1, self._first_bad_step)
        return loss

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> tuple[Any, DataLoader]:
        if self.settings.fsdp:
            shard(self.model)
        return super()._prepare_for_training(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The Trainer's, its groups split where a part has a learning rate or weight decay of its own."""
        optimizer = super().create_optimizer(model)
        if self.settings.fsdp:
            keep_states_whole(optimizer)
        groups: list[dict[str, Any]] = []
        for part, (rate, decay) in self._part_options().items():
            own = set(map(id, getattr(self.model, part).parameters()))
            for group in optimizer.param_groups:
                members = [parameter for parameter in group["params"] if id(parameter) in own]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
                decays = any(parameter.ndim >= 2 for parameter in members)
                options = {"lr": rate, "initial_lr": rate, "weight_decay": decay if decays else 0.0}
                groups.append({**group, **options, "params": members})
        optimizer.param_groups[:] = [group for group in [*optimizer.param_groups, *groups] if group["params"]]
        return optimizer

    def _part_options(self) -> dict[str, tuple[float, float]]:
        """Learning rate and weight decay of the parts that have their own."""
        given = {
            part: (getattr(self.settings, f"{part}_learning_rate"), getattr(self.settings, f"{part}_weight_decay"))
            for part in ("language_model", "encoder")
        }
        return {
            part: (
                self.settings.learning_rate if rate is None else rate,
                self.settings.weight_decay if decay is None else decay,
            )
            for part, (rate, decay) in given.items()
            if rate is not None or decay is not None
        }

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        return [name for name, parameter in model.named_parameters() if parameter.ndim >= 2]

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # the Trainer's formula counts mel values as tokens

    # ---- logging and validation

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        self.meter.stop()
        self._sizes.clear()
        if self._unlogged:
            self._take_up_unlogged(tr_loss)
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self._stop_if_not_finite()
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _take_up_unlogged(self, tr_loss: torch.Tensor) -> None:
        """The first entry of a resumed run counts the steps before the checkpoint too, as that of a whole run does."""
        tr_loss += self._unlogged["loss"]
        self._globalstep_last_logged = self._unlogged["after_step"]
        for name, values in self._unlogged["parts"].items():
            before = [torch.tensor(value, device=self.args.device) for value in values]
            self._parts[name] = [*before, *self._parts.get(name, ())]
        self._unlogged = {}

    def _stop_if_not_finite(self) -> None:
        bad = [step for step in gathered(int(self._first_bad_step)) if step >= 0]
        if bad:
            error = TinyAudioError(
                f"The loss is not a finite number at step {min(bad)}; lower training.learning_rate, or use dtype=bf16 or "
                f"fp32, and go on from the last checkpoint with --resume {self.folder}."
            )
            raise said_once(error)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """To the trackers and, a line an entry, to log.jsonl."""
        if "train_runtime" in logs:
            return  # the Trainer's summary of itself, in units that mean nothing here
        if "loss" in logs:
            logs.update(self.meter.take())
            means = gathered({name: float(torch.stack(values).mean()) for name, values in self._parts.items()})
            logs.update({name: sum(own[name] for own in means) / len(means) for name in self._parts})
            self._parts.clear()
        self.state.epoch = self.feed.epochs(self.state.global_step)
        super().log(logs, start_time)
        if not is_first():
            return
        with open(self.folder / LOG_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.state.global_step, **logs}) + "\n")

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation loss and WER; the WER is a fraction."""
        eager = torch.compiler.set_stance("force_eager")  # each length of the cache would be compiled by itself
        with self.accelerator.autocast(), unsharded(self.model), eager:
            measured = self.validation.measure(self.model)
        metrics = {"eval_loss": measured.loss, "eval_wer": measured.wer, "eval_clips": measured.clips}
        metrics |= {f"eval_wer_{name}": wer for name, wer in measured.part_wers.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        better = super()._determine_best_metric(metrics, trial)
        if better:
            with whole(self.model):
                if is_first():
                    write_whole(self.folder / BEST, self.save_model)
        return better

    # ---- checkpoints

    def save_model(self, output_dir: str | Path | None = None, _internal_call: bool = False) -> None:
        self.model.save_pretrained(output_dir or self.folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        optimizer, unlogged = self.optimizer.state_dict(), self._not_yet_logged()  # all processes give theirs
        with whole(self.model):
            if is_first():
                folder = self.folder / f"checkpoint-{self.state.global_step}"
                write_whole(folder, lambda folder: self._write_checkpoint(folder, optimizer, unlogged))
                rotate(self.folder, self.args.save_total_limit)

    def _not_yet_logged(self) -> dict[str, Any]:
        """The losses since the last entry of the log, means of the processes; empty where there are none."""
        if self._globalstep_last_logged == self.state.global_step:
            return {}
        own = {"loss": [float(self._tr_loss)], **{name: [*map(float, values)] for name, values in self._parts.items()}}
        everyone = gathered(own)
        means = {
            name: [sum(each) / len(each) for each in zip(*(one[name] for one in everyone), strict=True)] for name in own
        }
        return {"loss": means.pop("loss")[0], "after_step": self._globalstep_last_logged, "parts": means}

    def _write_checkpoint(self, folder: Path, optimizer: dict[str, Any], unlogged: dict[str, Any]) -> None:
        self.save_model(folder)
        torch.save(optimizer, folder / OPTIMIZER_NAME)
        torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
        self._save_scaler(str(folder))
        self.state.save_to_json(str(folder / STATE_FILE))
        if self.feed.used:
            (folder / USED_FILE).write_text(json.dumps(self.feed.used))
        if unlogged:
            (folder / UNLOGGED_FILE).write_text(json.dumps(unlogged))

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Of a resumed run, the intervals are those of the settings, not those it began with."""
        started = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)
        return started

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Of a resumed run, learning rates and weight decay are those of the settings, not those it began with."""
        scheduler: Any = self.lr_scheduler
        wanted = [(group["initial_lr"], group["weight_decay"]) for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        scheduler.base_lrs = [rate for rate, _ in wanted]
        for group, (rate, decay), factor in zip(self.optimizer.param_groups, wanted, scheduler.lr_lambdas, strict=True):
            group.update(initial_lr=rate, lr=rate * factor(scheduler.last_epoch), weight_decay=decay)
        scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained_tensors(model or self.model, str(resume_from_checkpoint))


def training_arguments(settings: TrainingSettings, folder: Path, steps: int) -> TrainingArguments:
    """The Trainer's own arguments."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        run_name=folder.name,
        max_steps=steps,
        per_device_train_batch_size=1,  # batches are made by seconds
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SCHEDULES[settings.lr_scheduler],
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.dtype == "bf16",
        fp16=settings.dtype == "fp16",
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        seed=settings.seed,
        logging_steps=min(settings.logging_steps, steps),  # the shortest run has a loss too
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=settings.eval_steps or NEVER,
        save_strategy="steps",
        save_steps=settings.save_steps or NEVER,
        save_total_limit=settings.save_total_limit,
        metric_for_best_model="eval_wer",
        greater_is_better=False,
        dataloader_num_workers=settings.num_workers,
        remove_unused_columns=False,
        ignore_data_skip=True,  # the loader starts at the right batch by itself
        disable_tqdm=True,
        report_to="none",  # trackers come as callbacks
        ddp_broadcast_buffers=False,  # none changes
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several GPUs in one process would split a batch by clips
    return arguments


def may_leave_some_unused(model: ASRModel) -> bool:
    """Whether a step may leave trained weights without a gradient, which DDP is to be told: it costs time."""
    config = model.config
    above = config.encoder_lora_rank and config.encoder_layer not in (-1, "weighted")  # LoRA in layers that do not run
    return bool(above or config.projector_file)


def checkpointed_layers(model: ASRModel) -> list[torch.nn.Module]:
    """Switches on the recomputation of the language model's layers; returns those that do it."""
    model.language_model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return [module for module in model.language_model.modules() if getattr(module, "gradient_checkpointing", False)]


def per_cent(fraction: float) -> str:
    """0.0831 → "8.3 %"."""
    return "unknown" if math.isnan(fraction) else f"{100 * fraction:.1f} %"
