"""What bounds the training or the inference of a method: its operators' time, bytes and multiply-adds."""
