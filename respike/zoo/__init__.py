"""Networks, training, scores, weights. Meets the data only at `respike.sample`."""
