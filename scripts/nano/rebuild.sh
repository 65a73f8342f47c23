#!/usr/bin/env bash
# The embedded nano base from nothing: scripts/nano/rebuild.sh WORK. About two hours on 2 CPU cores, less on a GPU.
# Run it in the project's root, in its environment. Training is by the clock (VAE, image encoder) or by steps (UNet).
set -euo pipefail
work=${1:?usage: scripts/nano/rebuild.sh WORK}
export PYTHONPATH=$PWD
python scripts/demo_sets/render.py world "$work/world" --train 6000 --held-out 64
for look in style subject; do # the VAE must know every look; the UNet sees the plain world only
    python scripts/demo_sets/render.py $look "$work/$look" --train 600 --held-out 16
done
parts=$work/parts
python scripts/nano/train_vae.py "$parts/vae" "$work"/world/train-00000[01].tar "$work"/{style,subject}/train-*.tar \
    "$work"/{world,style,subject}/held_out-*.tar --minutes 14
python scripts/nano/train_image_encoder.py "$parts" "$work/world/train-000002.tar" "$work"/{style,subject}/train-*.tar \
    --minutes 2.5
python scripts/nano/assemble.py "$parts" "$work/fresh"
python -m svdtrain fit config=nano_pretrain model.source="$work/fresh" data.source="$work/world" run_dir="$work/run"
python scripts/nano/assemble.py "$parts" svdtrain/assets/nano --unet "$work/run/denoiser" --dtype float16
python scripts/demo_sets/judge_base.py "$work/world" "$work/judged"
