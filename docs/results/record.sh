#!/usr/bin/env bash
# The commands behind docs/results: record.sh digits-classes | digits-8 | textures    (in the root of a checkout, after make .venv)
# Networks go to runs/, run folders beside this script; a repeated call resumes.
set -euo pipefail
bin=.venv/bin
out=docs/results
radii=0,0.05,0.1,0.2,0.25,0.5

best() { # the options of the first candidate in a selection
  $bin/python - "$1" <<'PY'
import json, sys
c = json.load(open(sys.argv[1]))["candidates"][0]
print("--sigma", c["sigma"], "--inner_sigma", c["inner_sigma"], "--score", c["score_name"], "--patch_size", c["patch_size"])
PY
}

three_ways() { # NAME NETWORK LIMIT SELECT-OPTIONS...: reference on all test images, input and denoise chosen on validation
  local name=$1 network=$2 limit=$3
  shift 3
  $bin/certify --detector "$network" --radii $radii --output_dir "$out/$name"
  for way in denoise input; do
    $bin/diffad select --detector "$network" --smoothing $way "$@" --output_dir "$out/$name-$way"
    # shellcheck disable=SC2046
    $bin/certify --detector "$network" --smoothing $way $(best "$out/$name-$way/selection-$way.json") --radii $radii \
      --no_baselines --limit "$limit" --output_dir "$out/$name-$way"
  done
}

case ${1:-} in
digits-classes)
  for c in 0 1 2 3 4 5 6 7 8 9; do
    $bin/python train_ddpm.py --config configs/digits.yaml --normal_class $c --output_dir runs/digits-$c
    $bin/diffad score --detector runs/digits-$c --json >"$out/digits-classes/$c.json"
    cp runs/digits-$c/manifest.json "$out/digits-classes/$c-training.json"
  done
  ;;
digits-8)
  three_ways digits-8 runs/digits-8 44 --sigmas 0.1,0.25,0.5 --inner_sigmas 0.1,0.25,0.5 --images 20 --draws 200
  $bin/diffad attack --detector runs/digits-8 --curve 0.1,0.25,0.5 --steps 20 --eot 8 --output_dir $out/digits-8
  $bin/diffad attack --detector pixel_nn --data digits --normal_class 8 --curve 0.1,0.25,0.5 --restarts 2 \
    --output_dir $out/digits-8
  $bin/diffad attack --detector runs/digits-8 --smoothing denoise --sigma 0.25 --inner_sigma 0.1 --score l2 --curve 0.25,0.5 \
    --steps 20 --eot 8 --limit 20 --output_dir $out/digits-8-denoise-attack
  $bin/diffad compare $out/digits-8 $out/digits-8-denoise $out/digits-8-input --output_dir $out/digits-8
  ;;
textures)
  $bin/python train_ddpm.py --config configs/textures.yaml --output_dir runs/textures
  three_ways textures runs/textures 20 --sigmas 0.1,0.25 --inner_sigmas 0.1,0.25 --radii 0.1,0.2 --images 10 \
    --draws 100 --batch_size 100
  $bin/diffad compare $out/textures --output_dir $out/textures
  ;;
*)
  echo "usage: record.sh digits-classes | digits-8 | textures" >&2
  exit 2
  ;;
esac
