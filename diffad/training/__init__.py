"""What every training shares: options, launch, the accelerate loop with EMA, log, checkpoints, clean stop.

A detector brings a network, the tensors to train on and the loss of one batch (see `diffad.diffusion.train`):

    accelerator, checkpoint = start_run(options, config)
    training = Training.prepare(
        accelerator, network, (images,), options, config=config, checkpoint=checkpoint
    )
    run(training, batch_loss, config=config)
    network = training.averaged()

Everything random is keyed by (seed, number of the batch, process): order, augmentation, noise, dropout. So a
checkpoint holds the state of no generator, and a resumed run repeats the unbroken one to the bit (on one
machine, with as many processes and threads).
"""

from diffad.training.batches import IMAGES, WEIGHTS, key
from diffad.training.loop import BatchLoss, DivergedError, Figures, run
from diffad.training.options import TrainingOptions
from diffad.training.record import write_manifest
from diffad.training.start import start_run
from diffad.training.state import Training

__all__ = [
    "IMAGES",
    "WEIGHTS",
    "BatchLoss",
    "DivergedError",
    "Figures",
    "Training",
    "TrainingOptions",
    "key",
    "run",
    "start_run",
    "write_manifest",
]
