"""`segment_sum`, `segment_mean`, `segment_max`, `segment_softmax`: readouts of graphs."""
