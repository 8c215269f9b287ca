"""Write weights/tiny from the training state: fp16 safetensors, config, T5 and manifest.

    python -m training.tiny.export [--out weights/tiny] [--temperature 0.85]

A temperature below one is folded into the output layers, so that the sampling values users send by default suit a
model this small.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile

import torch
import yaml
from safetensors.torch import save_file

from looper.checkpoints.convert import replace_folder
from looper.checkpoints.manifest import write_manifest
from training.tiny.codec import WORK, build
from training.tiny.config import CODEC, LM
from training.tiny.lm import T5, Tiny


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floats as contiguous fp16."""
    return {k: (v.half() if v.is_floating_point() else v).contiguous().clone() for k, v in state.items()}


def export(out: pathlib.Path, temperature: float) -> None:
    torch.manual_seed(0)
    model = Tiny()
    saved = torch.load(WORK / "lm.pt", weights_only=True)
    model.load_state_dict(saved["model"])
    codec = build()
    codec.load_state_dict(torch.load(WORK / "codec.pt", weights_only=True)["model"])
    lm = {k: v for k, v in model.lm.state_dict().items() if ".t5." not in k}
    for k in range(model.lm.n_q):
        lm[f"linears.{k}.weight"] = lm[f"linears.{k}.weight"] / temperature
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        made = pathlib.Path(scratch) / out.name
        made.mkdir()
        save_file(half({**lm, "clock.weight": model.clock.weight.data}), made / "lm.safetensors")
        save_file(half(codec.state_dict()), made / "codec.safetensors")
        t5 = model.text.conditioner.t5
        t5.save_pretrained(made / "t5")
        (made / "t5" / "spiece.model").write_bytes((T5 / "spiece.model").read_bytes())
        ours = {"clock": {"kind": "bar", "temperature_folded": temperature, "steps": saved["step"]}}
        (made / "config.yaml").write_text(
            yaml.safe_dump({"lm": LM, "codec": CODEC, "looper": ours}, sort_keys=False)
        )
        card = out / "README.md"
        if card.exists():
            (made / "README.md").write_text(card.read_text())
        write_manifest(made, out.name, licence="Apache-2.0", source="training/ in this repository")
        replace_folder(made, out)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{out}: {size / 1e6:.2f} MB, LM step {saved['step']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("weights/tiny"))
    parser.add_argument("--temperature", type=float, default=0.85)
    args = parser.parse_args()
    export(args.out, args.temperature)


if __name__ == "__main__":
    main()
