#!/usr/bin/env bash
# The commands behind docs/results: record.sh digits-classes | digits-8 | digits-9 | generated | textures | mnist | sandwich | localise |
# purification | zarnd | cobra | atd | mnist16 | others, in the root of a checkout after `make .venv`. Networks go to runs/, run folders
# beside this script; a repeated call resumes.
# mnist and mnist16 download the set, or read MNIST_DATA=folder:FOLDER (FOLDER/train/<digit>/*.png).
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

three_ways() { # NAME NETWORK SELECT-OPTIONS...: reference as training chose it, input and denoise chosen with the same images and draws
  local name=$1 network=$2
  shift 2
  $bin/certify --detector "$network" --radii $radii --output_dir "$out/$name"
  cp "$network/manifest.json" "$out/$name/training.json"
  cp "$network/selection.json" "$out/$name/selection-reference.json"
  for way in input denoise; do
    $bin/diffad select --detector "$network" --smoothing $way --draws 300 "$@" --output_dir "$out/$name-$way"
    # shellcheck disable=SC2046
    $bin/certify --detector "$network" --smoothing $way $(best "$out/$name-$way/selection-$way.json") --radii $radii \
      --no_baselines --output_dir "$out/$name-$way"
  done
}

smoothed() { # FOLDER DETECTOR OPTIONS...: certified by plain smoothing, its sigma fixed beforehand, and attacked
  local o=$1 detector=$2
  shift 2
  $bin/certify --detector "$detector" --smoothing input --sigma 0.25 --radii $radii --no_baselines "$@" --output_dir "$o"
  $bin/diffad attack --detector "$detector" --smoothing input --sigma 0.25 --curve 0.1,0.25,0.5 --steps 20 --eot 8 "$@" --output_dir "$o"
}

beside() { # NAME: one table of all that is recorded of these images
  local found=()
  for part in "" -denoise -input -zarnd -cobra -atd; do
    if [[ -f $out/$1$part/manifest.json ]]; then found+=("$out/$1$part"); fi
  done
  $bin/diffad compare "${found[@]}" --output_dir "$out/$1"
}

localised() { # FOLDER DETECTOR LIMIT: maps of magnetic tiles, clean and attacked
  local where="--detector $2 --data mvtec:data/magnetic_tile --resolution 64 --limit $3"
  # shellcheck disable=SC2086
  $bin/diffad attack $where --norm linf --curve 2/255,8/255 --method apgd --steps 20 --checks mandatory --output_dir "runs/localise-$2"
  # shellcheck disable=SC2086
  $bin/diffad localise $where --attack "runs/localise-$2" --output_dir "$1"
  cp "runs/localise-$2/manifest.json" "$1/$2-attack.json"
}

digits_class() { # CLASS: one class of digits, everything
  local name=digits-$1
  local attacked=(--curve 0.1,0.25,0.5 --method ensemble --checks mandatory --output_dir "$out/digits-$1")
  $bin/python train_ddpm.py --config configs/digits.yaml --normal_class "$1" --output_dir "runs/$name"
  three_ways "$name" "runs/$name" --images 50 --sigmas 0.1,0.25,0.5 --inner_sigmas 0.1,0.25,0.5
  $bin/diffad attack --detector "runs/$name" "${attacked[@]}" --steps 20 --eot 4 --n 500
  $bin/diffad attack --detector pixel_nn --data digits --normal_class "$1" "${attacked[@]}" --steps 50
  beside "$name"
}

case ${1:-} in
digits-classes)
  for c in 0 1 2 3 4 5 6 7 8 9; do
    $bin/python train_ddpm.py --config configs/digits.yaml --normal_class $c --output_dir runs/digits-$c
    $bin/diffad score --detector runs/digits-$c --json >"$out/digits-classes/$c.json"
    cp runs/digits-$c/manifest.json "$out/digits-classes/$c-training.json"
  done
  ;;
digits-8 | digits-9)
  digits_class "${1#digits-}"
  if [[ $1 == digits-8 ]]; then
    $bin/diffad attack --detector patch_nn --data digits --normal_class 8 --curve 0.1,0.25,0.5 --method ensemble --steps 20 \
      --checks small --output_dir $out/digits-8-patch_nn
  fi
  ;;
generated) # needs runs/digits-8 and runs/digits-9: their samples as a bank, and the tuned denoise of class 8 attacked
  for c in 8 9; do
    o=$out/digits-$c-generated
    $bin/diffad fit --detector generated_nn --generator runs/digits-$c --output_dir runs/digits-$c-generated
    $bin/certify --detector runs/digits-$c-generated --radii $radii --no_baselines --output_dir $o
    $bin/diffad attack --detector runs/digits-$c-generated --curve 0.1,0.25,0.5 --method ensemble --steps 50 --checks mandatory \
      --output_dir $o
    cp runs/digits-$c-generated/manifest.json $o/fit.json
    $bin/python $out/bank_controls.py runs/digits-$c $c $o/controls.json
  done
  # shellcheck disable=SC2046
  $bin/diffad attack --detector runs/digits-8 --smoothing denoise $(best $out/digits-8-denoise/selection-denoise.json) --curve 0.25,0.5 \
    --method ensemble --steps 20 --eot 4 --n 500 --checks mandatory --limit 20 --output_dir $out/digits-8-denoise-attack
  ;;
textures)
  $bin/python train_ddpm.py --config configs/textures.yaml --seed 1 --output_dir runs/textures
  three_ways textures runs/textures --images 30 --sigmas 0.1,0.15,0.25 --inner_sigmas 0.1,0.25 --radii 0.1,0.2,0.25
  $bin/diffad attack --detector runs/textures --limit 20 --curve 0.1,0.25 --method feature_target --steps 20 --eot 8 --n 500 --checks mandatory \
    --output_dir $out/textures-attack
  $bin/diffad compare $out/textures $out/textures-denoise $out/textures-input --output_dir $out/textures
  ;;
sandwich) # needs runs/digits-8 and data/magnetic_tile; every attacked image is judged by its certificate
  o=$out/digits-8-attack
  $bin/certify --detector runs/digits-8 --limit 10 --radii 0,0.1,0.25,0.5 --no_baselines --no_examples --output_dir $o
  $bin/diffad attack --detector runs/digits-8 --limit 10 --curve 0.1,0.25 --method ensemble --steps 20 --eot 4 --n 500 \
    --checks mandatory --output_dir $o
  $bin/diffad compare $o --output_dir $o
  o=$out/magnetic_tile/32-attack
  for d in pixel_nn pca; do
    where="--data mvtec:data/magnetic_tile --resolution 32 --limit 20"
    # shellcheck disable=SC2086
    $bin/certify --detector $d $where --radii 0,0.1,0.25,0.5 --no_baselines --no_examples --output_dir $o
    # shellcheck disable=SC2086
    $bin/diffad attack --detector $d $where --curve 0.1,0.25,0.5 --method ensemble --steps 50 --checks mandatory --output_dir $o
  done
  $bin/diffad compare $o --output_dir $o
  ;;
localise) # needs data/magnetic_tile; the attack is aimed at the image score, its images are judged by their maps
  o=$out/localisation
  localised $o/tile pixel_nn 50
  localised $o/tile pca 50
  for d in pixel_mean pca patch_nn; do # certified without noise
    $bin/diffad localise --detector $d --data textures:grid --limit 50 --radii 0.05,0.1,0.25 --output_dir $o/textures
  done
  ;;
purification) # needs runs/digits-8; what a purifier in front of pixel_nn washes out
  $bin/python docs/results/purification.py runs/digits-8 $out/purification --limit 30 --steps 10 --draws 8
  cp runs/digits-8/manifest.json $out/purification/training.json
  ;;
mnist)
  data=${MNIST_DATA:-mnist}
  for c in 0 3 8; do
    $bin/python train_ddpm.py --config configs/mnist.yaml --data "$data" --normal_class $c --output_dir runs/mnist-$c
    $bin/certify --detector runs/mnist-$c --data "$data" --limit 50 --radii 0,0.1,0.25,0.5,1 --output_dir $out/mnist-$c
    cp runs/mnist-$c/manifest.json $out/mnist-$c/training.json
  done
  ;;
zarnd) # beside the rows of digits-8 and mnist-8; the backbones have not seen the normal class, or no digit at all
  o=$out/digits-8-zarnd
  $bin/python -m diffad.backbones.train --config configs/backbones/digits.yaml --exclude_classes 5 6 7 8 9 \
    --output_dir runs/digits-backbone
  $bin/diffad fit --detector zarnd --backbone runs/digits-backbone --data digits --normal_class 8 --output_dir runs/digits-8-zarnd
  smoothed $o runs/digits-8-zarnd
  cp runs/digits-backbone/manifest.json $o/training.json
  beside digits-8
  o=$out/mnist-8-zarnd # needs runs/mnist-backbone: configs/backbones/cifar10_fgsm_rs.yaml, trained on CIFAR-10
  data=${MNIST_DATA:-mnist}
  $bin/diffad fit --detector zarnd --backbone runs/mnist-backbone --data "$data" --normal_class 8 --output_dir runs/mnist-8-zarnd
  $bin/certify --detector runs/mnist-8-zarnd --data "$data" --limit 50 --smoothing input --sigma 0.25 --radii 0,0.1,0.25,0.5 \
    --no_baselines --no_examples --output_dir $o
  ;;
cobra) # beside the rows of digits-8
  o=$out/digits-8-cobra
  $bin/python -m diffad.cobra.train --config configs/cobra/digits.yaml --normal_class 8 --output_dir runs/digits-8-cobra
  smoothed $o runs/digits-8-cobra
  cp runs/digits-8-cobra/manifest.json $o/training.json
  beside digits-8
  ;;
atd) # beside the rows of digits-8; needs runs/digits-backbone as zarnd makes it
  o=$out/digits-8-atd
  $bin/python -m diffad.atd.train --config configs/atd/digits.yaml --protocol one_class --normal_class 8 --outliers \
    --backbone runs/digits-backbone --output_dir runs/digits-8-atd
  smoothed $o runs/digits-8-atd
  cp runs/digits-8-atd/manifest.json $o/training.json
  beside digits-8
  ;;
mnist16) # eights of MNIST at 16 x 16, where every detector is cheap; needs runs/mnist-backbone as zarnd does
  o=$out/mnist16-8
  data=${MNIST_DATA:-mnist}
  images=(--data "$data" --normal_class 8 --resolution 16)
  $bin/python train_ddpm.py --config configs/mnist.yaml "${images[@]}" --output_dir runs/mnist16-8
  $bin/certify --detector runs/mnist16-8 --data "$data" --limit 50 --radii $radii --output_dir $o
  cp runs/mnist16-8/manifest.json $o/training.json
  attacked=(--limit 50 --curve 0.1,0.25,0.5 --steps 20 --eot 8 --output_dir $o)
  $bin/diffad attack --detector runs/mnist16-8 --data "$data" "${attacked[@]}"
  $bin/diffad attack --detector pixel_nn "${images[@]}" "${attacked[@]}"
  $bin/diffad fit --detector zarnd --backbone runs/mnist-backbone "${images[@]}" --output_dir runs/mnist16-8-zarnd
  $bin/python -m diffad.cobra.train --config configs/cobra/mnist.yaml "${images[@]}" --output_dir runs/mnist16-8-cobra
  $bin/python -m diffad.atd.train --config configs/atd/digits.yaml "${images[@]}" --protocol one_class --outliers \
    --backbone runs/mnist-backbone --output_dir runs/mnist16-8-atd
  for d in zarnd cobra atd; do
    smoothed $o-$d runs/mnist16-8-$d --data "$data" --limit 50
  done
  cp runs/mnist-backbone/manifest.json $o-zarnd/training.json
  for d in cobra atd; do
    cp runs/mnist16-8-$d/manifest.json $o-$d/training.json
  done
  beside mnist16-8
  ;;
others) # detectors of other libraries beside the toolkit's, on textures; needs the extras interop and anomalib, and runs/cifar10-robust
  # (configs/backbones/cifar10_fgsm_rs.yaml). Weights are random or trained here: nothing is downloaded.
  o=$out/textures-others
  images=(--data textures:grid --data_seed 1 --limit 15)
  noise=(--smoothing input --sigma 0.15)
  attacked=(--curve 0.1,0.25 --n 500 --eot 8 --checks mandatory --output_dir $o)
  by_gradients=(--method feature_target --steps 20 "${attacked[@]}") # plain PGD fails the check `floor` on some of them
  if [[ ! -f runs/textures-others/selection.json ]]; then
    $bin/python train_ddpm.py --config configs/textures.yaml --seed 1 --max_train_steps 800 --output_dir runs/textures-others
  fi
  $bin/python -m diffad.cobra.train --config configs/cobra/digits.yaml --data textures:grid --normal_class None --seed 1 \
    --max_train_steps 150 --output_dir runs/textures-cobra
  $bin/python -m diffad.atd.train --config configs/atd/digits.yaml --data textures:grid --protocol one_class --normal_class None \
    --outliers --seed 1 --eps 8/255 --backbone runs/cifar10-robust --output_dir runs/textures-atd
  $bin/diffad fit --detector zarnd --backbone runs/cifar10-robust --data textures:grid --seed 1 --output_dir runs/textures-zarnd
  $bin/diffad fit --detector pca --data textures:grid --seed 1 --output_dir runs/textures-pca
  $bin/diffad export runs/textures-pca runs/pca.onnx
  $bin/certify --detector runs/textures-others --limit 15 --radii 0,0.1,0.2,0.25 --output_dir $o
  # 20 steps miss the worst score that is known by one image, and `floor` fails
  $bin/diffad attack --detector runs/textures-others --limit 15 --method feature_target --steps 60 "${attacked[@]}"
  for d in zarnd cobra atd; do
    $bin/certify --detector runs/textures-$d --limit 15 "${noise[@]}" --radii 0,0.1,0.2,0.25 --no_baselines --no_examples --output_dir $o
    $bin/diffad attack --detector runs/textures-$d --limit 15 "${noise[@]}" "${by_gradients[@]}"
  done
  for d in pytorch_ood:EnergyBased,backbone=runs/cifar10-robust anomalib:Patchcore,weights=random; do
    $bin/certify --detector $d "${images[@]}" "${noise[@]}" --fit_sigma 0.15 --radii 0,0.1,0.2,0.25 --no_baselines --no_examples --output_dir $o
    $bin/diffad attack --detector $d "${images[@]}" "${noise[@]}" --fit_sigma 0.15 "${by_gradients[@]}"
  done
  for d in sklearn:IsolationForest pyod:IForest diffad.data.cues:roughness onnx:runs/pca.onnx; do # by their scores alone
    $bin/certify --detector $d "${images[@]}" "${noise[@]}" --fit_sigma 0.15 --radii 0,0.1,0.2,0.25 --no_baselines --no_examples --output_dir $o
    $bin/diffad attack --detector $d "${images[@]}" "${noise[@]}" --fit_sigma 0.15 --method black_box --steps 20 "${attacked[@]}"
  done
  d=anomalib:Padim,weights=random # its tensors are large: smaller batches, in a folder of its own
  $bin/certify --detector $d "${images[@]}" "${noise[@]}" --fit_sigma 0.15 --radii 0,0.1,0.2,0.25 --no_baselines --no_examples --output_dir $o-padim
  $bin/diffad attack --detector $d "${images[@]}" "${noise[@]}" --fit_sigma 0.15 "${by_gradients[@]}" --batch_size 50 --output_dir $o-padim
  if [[ ! -f runs/resnet18-cifar10.safetensors ]]; then
    $bin/python $out/timm_backbone.py --data folder:cifar10 --epochs 3 --output runs/resnet18-cifar10.safetensors # local weights
  fi
  $bin/diffad attack --detector anomalib:Patchcore,weights=runs/resnet18-cifar10.safetensors --data mvtec:magnetic_tile --resolution 64 \
    --limit 20 --smoothing plain --norm linf --eps 2/255 --method ensemble --steps 50 --checks mandatory --output_dir $o/patchcore-64
  for d in others cobra atd; do
    cp runs/textures-$d/manifest.json $o/training-$d.json
  done
  cp runs/textures-others/selection.json $o/selection-reference.json
  $bin/diffad compare $o $o-padim --output_dir $o
  ;;
*)
  echo "usage: record.sh digits-classes | digits-8 | digits-9 | generated | textures | mnist | sandwich | localise | purification |" \
    "zarnd | cobra | atd | mnist16 | others" >&2
  exit 2
  ;;
esac
