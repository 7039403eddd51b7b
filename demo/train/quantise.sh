#!/bin/sh
# Makes the AWQ INT4 and NVFP4 forms of an exported model with lance-quant's own scripts, on the CPU.
#   LANCE_QUANT=checkout-of-lance-quant [PYTHON=python] sh demo/train/quantise.sh MODEL
# MODEL-awq, MODEL-awq64 and MODEL-nvfp4 come beside it; what does not change is a link to MODEL's file.
set -eu
: "${LANCE_QUANT:?a checkout of Reza2kn/lance-quant}"
MODEL=$(cd "$1" && pwd) LANCE_QUANT=$(cd "$LANCE_QUANT" && pwd) PYTHON=${PYTHON:-python3}
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$PYTHON" -m demo.train.calibrate --model "$MODEL" --out "$work/stats.pt"
source="$MODEL/model.safetensors"
for group in 128 64; do
    "$PYTHON" "$LANCE_QUANT/scripts/awq_apply.py" --src "$source" --stats "$work/stats.pt" --out "$work/awq$group" \
        --group_size "$group" --device cpu
done
"$PYTHON" "$LANCE_QUANT/scripts/nvfp4_apply.py" --src "$source" --stats "$work/stats.pt" --out "$work/nvfp4" \
    --device cpu
"$PYTHON" -m demo.train.place_quantised --model "$MODEL" --made "$work"
