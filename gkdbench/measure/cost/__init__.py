"""What a method costs: training, answers and memory, each timed beside a reference in the same process."""
