"""COBRA: adversarial contrastive training against pseudo-anomalies crafted from the normal images themselves."""
