#!/bin/sh
# The whole recipe. RUN: a scratch folder; OUT: the model; MINUTES: of joint training (on 2 CPU cores: 60 or more).
# A part that is already in RUN is not made again.
#   [PYTHON=python] [DEVICE=cuda] sh demo/train/train.sh RUN OUT [MINUTES]
set -eu
mkdir -p "$1" "$2"
RUN=$(cd "$1" && pwd) OUT=$(cd "$2" && pwd) MINUTES=${3:-60}
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3} DEVICE=${DEVICE:-cpu}
export OMP_NUM_THREADS=1
step() { module=$1; shift; "$PYTHON" -m "demo.train.$module" "$@"; }

[ -f "$RUN/tokenizer/vocab.json" ] || step make_tokenizer --out "$RUN/tokenizer"
[ -f "$RUN/vae_folded.pt" ] || step train_vae --out "$RUN/vae.pt" --minutes "${VAE_MINUTES:-25}" --device "$DEVICE"
[ -f "$RUN/images.pkl" ] || step encode_latents --run "$RUN" --what images --count "${IMAGES:-2000}" --device "$DEVICE"
[ -f "$RUN/clips.pkl" ] || step encode_latents --run "$RUN" --what clips --count "${CLIPS:-1320}" --device "$DEVICE"
[ -f "$RUN/vit.pt" ] || step train_vit --out "$RUN/vit.pt" --minutes "${VIT_MINUTES:-10}" --device "$DEVICE"
step train_vae --decoder --init "$RUN/vae_folded.pt" --out "$RUN/vae_decoder.pt" --minutes "$MINUTES" \
    --image-share 0.05 --lr 6e-4 --device "$DEVICE" &
decoder=$!
ranks=2
[ "$DEVICE" = cpu ] || ranks=1
step train_joint --run "$RUN" --ranks "$ranks" --vit "$RUN/vit.pt" --minutes "$MINUTES" --device "$DEVICE"
wait "$decoder"
step export --run "$RUN" --vae "$RUN/vae_decoder.pt" --out "$OUT"
step evaluate --model "$OUT" --sheets "$RUN/samples" --count "${COUNT:-48}" --device "$DEVICE"
