"""What happens to a model: data, training, distillation, pruning, quantisation, export and profiling."""
