"""Hugging Face's Trainer under Pitcrew, and anywhere else: a language model on text files, resumed from its newest checkpoint.

    torchrun --nproc-per-node 8 train.py --model Qwen/Qwen3-0.6B --data corpus/*.txt --folder RUN

Needs torch, transformers, accelerate and datasets in the image. PitcrewCallback is all there is to add to a Trainer of one's own;
without Pitcrew around it does nothing.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

import pitcrew_progress as pitcrew
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments


class PitcrewCallback(TrainerCallback):
    """Says on the progress page how far the rank is; saves when that is asked for, and stops between two steps."""

    def __init__(self):
        self.page = pitcrew.Progress()
        self.launcher = pitcrew.Launcher()
        self.loss, self.request, self.stopping = float("nan"), 0, False
        if self.page:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the page says the same

    def agreed(self, wanted):
        """Whether any rank has seen the word: it reaches them at different moments, and saving is done by all."""
        if not torch.distributed.is_initialized():
            return wanted
        device = "cuda" if torch.cuda.is_available() else "cpu"
        word = torch.tensor(int(wanted), device=device)
        torch.distributed.all_reduce(word, torch.distributed.ReduceOp.MAX)
        return bool(word)

    def on_train_begin(self, arguments, state, control, **_):
        self.page.phase(pitcrew.FIRST_STEP)
        if state.is_world_process_zero:
            self.page.totals(state.max_steps)
            self.page.resumed(state.global_step or None, pitcrew.FILE_SYSTEM if state.global_step else pitcrew.NONE)

    def on_log(self, arguments, state, control, logs=None, **_):
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(self, arguments, state, control, **_):
        self.page.phase(pitcrew.TRAINING)
        samples = state.global_step * arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        self.page.step_done(state.global_step, samples=samples, loss=self.loss)
        self.stopping = self.agreed(self.page.stop_requested())
        if self.stopping or self.agreed(self.page.save_requested()):
            self.request = self.page.serve_save()
            control.should_save = True
        if control.should_save:
            self.page.phase(pitcrew.SAVING)
        control.should_training_stop = control.should_training_stop or self.stopping
        return control

    def on_save(self, arguments, state, control, **_):
        if state.is_world_process_zero:
            self.page.durable(state.global_step)
            self.launcher.saved(state.global_step, f"{arguments.output_dir}/checkpoint-{state.global_step}", request=self.request)

    def on_evaluate(self, arguments, state, control, **_):
        self.page.phase(pitcrew.TRAINING)


def newest_complete(folder, ranks):
    """The newest checkpoint that was written to its end: the Trainer writes into the folder itself, so that a rank killed
    meanwhile leaves half of one behind, which transformers' get_last_checkpoint() would take."""
    def complete(checkpoint):
        random = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())  # what rank 0 writes last
        except (OSError, ValueError):
            return False
        return all((checkpoint / name).exists() for name in random)

    found = [path for path in Path(folder).glob("checkpoint-*") if path.name.split("-")[1].isdigit() and complete(path)]
    return str(max(found, key=lambda path: int(path.name.split("-")[1]))) if found else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="Qwen/Qwen3-0.6B", help="a name of the hub, or a folder")
    parser.add_argument("--data", nargs="+", required=True, help="text files")
    parser.add_argument("--folder", required=True, help="of checkpoints, on storage that all nodes share")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--context", type=int, default=1024)
    given = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(given.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(given.model, torch_dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    text = load_dataset("text", data_files=given.data, split="train").filter(lambda line: line["text"].strip())
    tokens = text.map(lambda lines: tokenizer(lines["text"], truncation=True, max_length=given.context), batched=True, remove_columns=["text"])
    callback = PitcrewCallback()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=given.folder, max_steps=given.steps, save_steps=given.save_every, save_total_limit=2, logging_steps=10,
            per_device_train_batch_size=4, bf16=torch.cuda.is_available(), report_to=[], seed=1,
            # Longer than the launcher's limit for hangs: it finds the culprit, a time-out only ends the others.
            ddp_timeout=3600),
        train_dataset=tokens,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        callbacks=[callback],
    )
    callback.page.phase(pitcrew.RESTORING)
    trainer.train(resume_from_checkpoint=newest_complete(given.folder, trainer.args.world_size))
    if callback.stopping:
        sys.exit(0)
    callback.page.phase(pitcrew.DONE)


if __name__ == "__main__":
    main()
