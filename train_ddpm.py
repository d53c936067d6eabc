"""Train a diffusion detector: accelerate launch train_ddpm.py --config configs/digits.yaml"""

import sys

from diffad.diffusion.train import main

if __name__ == "__main__":
    sys.exit(main())
