"""What Flower is told of tasks."""
